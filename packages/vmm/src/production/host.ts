/**
 * Whether a host is fit to run strangers' code under Firecracker: what its documentation asks for (docs/prod-host-setup.md of Firecracker), and
 * what our own use of it needs, as far as /proc, /sys and /dev tell. Asked by doctor, and by a daemon in production mode, which refuses some.
 */
import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { SECURITY_CHECKS } from './security.ts';
import { TUNING_CHECKS } from './tuning.ts';

export { isAtLeast } from './version.ts';

export type HostFinding = {
  readonly status: 'ok' | 'warn' | 'n/a';
  readonly found: string;
  /** What to type or change; absent when all is well. */
  readonly fix?: string;
};

export type ProductionCheck = {
  readonly name: string;
  /** Production mode does not start while this is not well. */
  readonly isRequired: boolean;
  readonly look: (host: HostFiles) => Promise<HostFinding>;
};

/** A host's files: its own, or a test's. */
export class HostFiles {
  readonly #root: string;

  constructor(root = '/') {
    this.#root = root;
  }

  /** @returns undefined when it cannot be read */
  read(path: string): Promise<string | undefined> {
    return readFile(join(this.#root, path), 'utf8').then(
      (text) => text.trim(),
      () => undefined,
    );
  }

  list(path: string): Promise<string[]> {
    return readdir(join(this.#root, path)).then(
      (names) => names.sort(),
      () => [],
    );
  }

  /** @returns undefined when it is not there */
  mode(path: string): Promise<number | undefined> {
    return stat(join(this.#root, path)).then(
      (found) => found.mode,
      () => undefined,
    );
  }
}

/** Of a required check for which there is nothing else to do. */
const NOT_TOLD = 'Start the daemon where /proc and /sys are those of the host: in a container they may be hidden.';

export const PRODUCTION_CHECKS: readonly ProductionCheck[] = [...SECURITY_CHECKS, ...TUNING_CHECKS];

/** @returns those that keep production mode from starting, by the names of their checks: what is not well, and what nobody can tell */
export async function productionObstacles(host: HostFiles): Promise<(HostFinding & { readonly name: string })[]> {
  const required = PRODUCTION_CHECKS.filter(({ isRequired }) => isRequired);
  const findings = await Promise.all(required.map(async ({ name, look }) => ({ name, ...(await look(host)) })));
  return findings.filter(({ status }) => status !== 'ok').map((finding) => ({ fix: NOT_TOLD, ...finding }));
}

/** Which Firecracker this is, and whether it is one that this backend works with. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { InstaVMError } from '@instavm/wire';

export type FirecrackerBinaries = { readonly firecracker: string; readonly jailer: string };

/** 1.12 is the oldest that the tests run on. */
const OLDEST: Version = [1, 12, 0];
const REFUSED: readonly { readonly version: Version; readonly why: string }[] = [
  {
    version: [1, 16, 0],
    why: 'a microVM that it restores does not answer on its vsock (firecracker pull request 5958); 1.16.1 does',
  },
];

const INSTALL = 'Install firecracker and jailer of the same release.';

type Version = readonly [major: number, minor: number, patch: number];

/**
 * @returns the version as text, part of a template's key
 * @throws boot_failed when one of the two cannot be run, they differ, or the version is not supported
 */
export async function firecrackerVersion(binaries: FirecrackerBinaries): Promise<string> {
  const [firecracker, jailer] = await Promise.all([versionOf(binaries.firecracker), versionOf(binaries.jailer)]);
  if (firecracker.join('.') !== jailer.join('.'))
    throw new InstaVMError('boot_failed', `Firecracker is ${firecracker.join('.')}, its jailer ${jailer.join('.')}`, {
      hint: INSTALL,
    });
  const why = unsupported(firecracker);
  if (why !== undefined)
    throw new InstaVMError('boot_failed', why, { hint: 'Install another release of Firecracker.' });
  return firecracker.join('.');
}

/** @returns why this version cannot be used, or undefined */
export function unsupported(version: Version): string | undefined {
  const text = version.join('.');
  if (compare(version, OLDEST) < 0) return `Firecracker ${text} is older than ${OLDEST.join('.')}`;
  const refused = REFUSED.find((each) => compare(each.version, version) === 0);
  return refused && `Firecracker ${text} cannot be used: ${refused.why}`;
}

function compare(a: Version, b: Version): number {
  return a[0] - b[0] || a[1] - b[1] || a[2] - b[2];
}

/** @param output `Firecracker v1.12.1`, then perhaps more lines */
export function parseVersion(output: string): Version | undefined {
  const [, major, minor, patch] = /^\S+ v(\d+)\.(\d+)\.(\d+)/.exec(output) ?? [];
  return patch === undefined ? undefined : [Number(major), Number(minor), Number(patch)];
}

async function versionOf(binary: string): Promise<Version> {
  const output = await promisify(execFile)(binary, ['--version']).catch((cause: unknown) => {
    throw new InstaVMError('boot_failed', `${binary} cannot be run`, { cause, hint: INSTALL });
  });
  const version = parseVersion(output.stdout);
  if (version === undefined)
    throw new InstaVMError('boot_failed', `${binary} does not say which version it is`, { hint: INSTALL });
  return version;
}

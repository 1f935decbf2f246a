/** Whether this host can run microVMs under Firecracker, and if not, why not and what to do: asked by the daemon when it starts, and by doctor. */
import { access, constants, readFile, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import type { GuestImages } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { type FirecrackerBinaries, firecrackerVersion } from './firecracker/version.ts';
import { findExecutable } from './host/executable.ts';
import { probeKvm, qemuVersion } from './qemu/probe.ts';

export type FirecrackerHost = {
  readonly images: GuestImages;
  /** Paths, or names on the search path. */
  readonly binaries: FirecrackerBinaries;
  readonly cacheDirectory: string;
  readonly dataDirectory: string;
  /** False when it is known, or said, that KVM runs guests here. */
  readonly probe: boolean;
};

export type FirecrackerVerdict =
  | { readonly usable: true; readonly binaries: FirecrackerBinaries; readonly version: string }
  | { readonly usable: false; readonly why: string; readonly remedy: string };

/** Of the jail's limits. */
const CONTROLLERS = ['cpu', 'memory', 'pids'];

class Obstacle extends Error {
  readonly remedy: string;

  constructor(why: string, remedy: string) {
    super(why);
    this.remedy = remedy;
  }
}

/** @param progress told before a probe guest is booted */
export async function judgeFirecracker(
  host: FirecrackerHost,
  progress: (message: string) => void,
): Promise<FirecrackerVerdict> {
  try {
    if (process.getuid?.() !== 0)
      throw new Obstacle('the jailer needs root', 'Run the daemon as root; every microVM has a user of its own.');
    const binaries = await found(host.binaries);
    const version = await firecrackerVersion(binaries).catch((error: unknown) => {
      throw error instanceof InstaVMError ? new Obstacle(error.message, error.hint) : error;
    });
    await checkFilesystems(host);
    await checkCgroups();
    await checkKvm(host, progress);
    return { usable: true, binaries, version };
  } catch (error) {
    if (!(error instanceof Obstacle)) throw error;
    return { usable: false, why: error.message, remedy: error.remedy };
  }
}

/** The jailer names directories after the file that a link leads to, so links are followed here. */
async function found({ firecracker, jailer }: FirecrackerBinaries): Promise<FirecrackerBinaries> {
  const find = async (name: string, setting: string): Promise<string> => {
    const path = await findExecutable(name);
    if (path === undefined)
      throw new Obstacle(
        `there is no executable ${name}`,
        `Install firecracker and jailer of one release, or set ${setting} to its path.`,
      );
    return path;
  };
  return {
    firecracker: await find(firecracker, 'INSTAVM_FIRECRACKER_BIN'),
    jailer: await find(jailer, 'INSTAVM_JAILER_BIN'),
  };
}

async function checkCgroups(): Promise<void> {
  const text = await readFile('/sys/fs/cgroup/cgroup.controllers', 'utf8').catch(() => undefined);
  if (text === undefined)
    throw new Obstacle('/sys/fs/cgroup is not cgroup v2', 'Boot with systemd.unified_cgroup_hierarchy=1.');
  const missing = CONTROLLERS.filter((name) => !text.trim().split(' ').includes(name));
  if (missing.length === 0) return;
  throw new Obstacle(
    `cgroup v2 has no controller ${missing.join(', ')} at /sys/fs/cgroup`,
    'Run the daemon on the host itself, where the root of cgroup v2 has them.',
  );
}

async function checkFilesystems({ cacheDirectory, dataDirectory }: FirecrackerHost): Promise<void> {
  const [cache, data] = await Promise.all([deviceOf(cacheDirectory), deviceOf(dataDirectory)]);
  if (cache === data) return;
  throw new Obstacle(
    `${cacheDirectory} and ${dataDirectory} are on different filesystems, and jails are hard links`,
    'Set INSTAVM_CACHE_DIR and INSTAVM_DATA_DIR to directories of one filesystem.',
  );
}

/** Of the nearest directory that exists. */
async function deviceOf(path: string): Promise<number> {
  const present = await stat(path).catch(() => undefined);
  return present?.dev ?? deviceOf(dirname(path));
}

async function checkKvm({ images, cacheDirectory, probe }: FirecrackerHost, progress: (message: string) => void) {
  const remedy = 'Use a host in which KVM runs guests: npm run doctor says more.';
  const opened = await access('/dev/kvm', constants.R_OK | constants.W_OK).then(
    () => true,
    () => false,
  );
  if (!opened) throw new Obstacle('/dev/kvm does not exist or cannot be opened', remedy);
  // Where there is no QEMU to probe with, the first template is the proof.
  const canProbe = probe && (await qemuVersion().then(Boolean, () => false));
  if (!canProbe) return;
  const { usable, reason } = await probeKvm(images, cacheDirectory, progress);
  if (!usable) throw new Obstacle(reason, remedy);
}

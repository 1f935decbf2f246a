/**
 * The cgroup of one jail (cgroup v2): what it may use, and which processes are in it. The kernel keeps that list and no process can leave, so
 * it proves which processes are a microVM's, and ends them all.
 */
import { rmdirSync } from 'node:fs';
import { mkdir, readdir, readFile, realpath, rmdir, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { InstaVMError } from '@instavm/wire';

const MOUNT = '/sys/fs/cgroup';
/** Nothing helps but waiting: a killed process may be in the kernel, at a disk that is slow, and gives back all of a guest's memory. */
const END_DEADLINE_MS = 30_000;
/** Most are gone at once; asking others as often would take processor time from their end. */
const [FIRST_POLL_MS, LAST_POLL_MS] = [2, 50];
const CONTROLLERS = '+cpu +memory +pids';

/**
 * The disk under a file, as cgroups name it: whole, for a partition has no limits of its own.
 * @returns `major:minor`; undefined when there is no such file, or the filesystem has no disk to itself (btrfs, ZFS, overlay, NFS)
 */
export async function diskUnder(path: string): Promise<string | undefined> {
  const dev = (await stat(path).catch(() => undefined))?.dev ?? 0;
  // As makedev(3) packs them.
  const [major, minor] = [(dev >>> 8) & 0xfff, (dev & 0xff) | ((dev >>> 12) & 0xfff00)];
  const device = await realpath(`/sys/dev/block/${major}:${minor}`).catch(() => undefined);
  if (device === undefined) return undefined;
  const isPartition = await stat(join(device, 'partition')).then(
    () => true,
    () => false,
  );
  return (await readFile(join(isPartition ? dirname(device) : device, 'dev'), 'utf8')).trim();
}

/**
 * The cgroup above the jails of a daemon, when there is none. Synchronous: between the question and the answer nobody starts another.
 * @param parent relative to the mount
 */
export function removeIfEmpty(parent: string): void {
  try {
    rmdirSync(join(MOUNT, parent));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // Where this user cannot write, there is none of ours.
    if (!['ENOENT', 'EBUSY', 'EROFS', 'EACCES'].includes(code ?? '')) throw error;
  }
}

/** Names of those in it. @param parent relative to the mount */
export async function cgroupsIn(parent: string): Promise<string[]> {
  const entries = await readdir(join(MOUNT, parent), { withFileTypes: true }).catch(() => []);
  return entries.filter((entry) => entry.isDirectory()).map(({ name }) => name);
}

export class Cgroup {
  readonly path: string;
  readonly #parent: string;

  /** @param parent relative to the mount. @param name the jail's. @param mount another than the kernel's, for tests */
  constructor(parent: string, name: string, mount = MOUNT) {
    this.path = join(mount, parent, name);
    this.#parent = parent;
  }

  /**
   * Limits the traffic with the disk under `path`, where the kernel can: it has the controller, and the filesystem a disk.
   * @param ioMax of `io.max`, without the device
   * @returns whether it is limited
   */
  async limitDisk(path: string, ioMax: string): Promise<boolean> {
    const device = await diskUnder(path);
    if (device === undefined) return false;
    const write = (): Promise<boolean> =>
      writeFile(join(this.path, 'io.max'), `${device} ${ioMax}`, { flag: 'r+' }).then(
        () => true,
        (error: NodeJS.ErrnoException) => {
          // No such file: the controller is off. No such device: one without a queue, to which io does not apply.
          if (error.code === 'ENOENT' || error.code === 'ENODEV') return false;
          throw error;
        },
      );
    if (await write()) return true;
    // The jailer turns on what it was asked for, and its way of asking cannot say several limits at once.
    const parts = this.#parent.split('/');
    for (const [depth] of ['', ...parts].entries()) {
      const above = join(MOUNT, ...parts.slice(0, depth), 'cgroup.subtree_control');
      // A kernel without it says EINVAL, and the next write that there is nothing to write to.
      await writeFile(above, '+io').catch(() => {});
    }
    return write();
  }

  /**
   * Makes it, for jails that no jailer makes it for.
   * @param limits by the names of the kernel's files
   */
  async create(limits: Readonly<Record<string, string>>): Promise<void> {
    const parent = dirname(this.path);
    await mkdir(parent, { recursive: true });
    for (const above of [MOUNT, parent]) await writeFile(join(above, 'cgroup.subtree_control'), CONTROLLERS);
    await mkdir(this.path);
    for (const [name, value] of Object.entries(limits)) await writeFile(join(this.path, name), value);
  }

  async add(pid: number): Promise<void> {
    await writeFile(join(this.path, 'cgroup.procs'), String(pid));
  }

  /** Host pids; empty when there is no such cgroup. */
  async processes(): Promise<number[]> {
    const text = await readFile(join(this.path, 'cgroup.procs'), 'utf8').catch(() => '');
    return text.split('\n').filter(Boolean).map(Number);
  }

  async isPopulated(): Promise<boolean> {
    const events = await readFile(join(this.path, 'cgroup.events'), 'utf8').catch(() => '');
    return events.includes('populated 1');
  }

  /** Ends everything in it, and removes it. Idempotent. @throws teardown_incomplete */
  async end(): Promise<void> {
    const until = performance.now() + END_DEADLINE_MS;
    for (let pause = FIRST_POLL_MS; performance.now() < until; pause = Math.min(pause * 1.5, LAST_POLL_MS)) {
      await this.#kill();
      if ((await this.isPopulated()) || !(await this.#removed())) await sleep(pause);
      else return;
    }
    throw new InstaVMError('teardown_incomplete', `the processes in ${this.path} do not end`);
  }

  async #kill(): Promise<void> {
    const isDone = await writeFile(join(this.path, 'cgroup.kill'), '1', { flag: 'r+' }).then(
      () => true,
      () => false,
    );
    if (isDone) return;
    // Kernels before 5.14 have no such file; where there is no cgroup, there are no processes either.
    for (const pid of await this.processes()) {
      try {
        // 0: one that this process cannot see, and to the kernel a name for whoever asks.
        if (pid > 0) process.kill(pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }

  /** Idempotent. @returns false when its last process is gone, and it is not yet empty */
  async #removed(): Promise<boolean> {
    try {
      await rmdir(this.path);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'EBUSY') return false;
      if (code !== 'ENOENT') throw error;
    }
    return true;
  }
}

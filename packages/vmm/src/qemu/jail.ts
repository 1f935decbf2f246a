/**
 * What QEMU is locked into beside its virtualisation: no privileges, a seccomp filter, no network, and where the daemon is root a user and a
 * cgroup of each microVM's own. Tools of util-linux start it; each does its part and becomes the next, so that the process which was started is
 * QEMU in the end. The directory of the microVM belongs to the daemon: QEMU adds its sockets to it, and nothing from before its guest runs.
 */
import { execFile } from 'node:child_process';
import { chmod, chown, lstat, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type MachineSize, parseIncarnationId } from '@instavm/core';
import { Cgroup, cgroupsIn, removeIfEmpty } from '../host/cgroup.ts';
import { type DiskLimits, ioMaxOf } from '../host/disk-limits.ts';
import { giveUpOomProtection } from '../host/oom.ts';
import { type UidRange, Uids } from '../host/uids.ts';
import { FILES } from './arguments.ts';

const run = promisify(execFile);

/** What this host lets a daemon do to the QEMUs that it starts. */
export type Confinement = {
  /** Network, IPC and host name of its own; `user`: in a user namespace, which an ordinary user needs for that. */
  readonly namespaces: 'root' | 'user' | 'none';
  /** Whether capabilities, which root has, can be taken away for good; one that has a user of its own has none anyway. */
  readonly dropsCapabilities: boolean;
  readonly uids: UidRange | undefined;
  /** Relative to the mount of cgroup v2; one daemon's own. */
  readonly parentCgroup: string | undefined;
  /** What is not to be had here, each with the reason. */
  readonly missing: readonly string[];
};

/** What is to be had everywhere. For guests that run nothing but ours, and only until they are frozen. */
export const PRIVILEGES_ONLY: Confinement = {
  namespaces: 'none',
  dropsCapabilities: false,
  uids: undefined,
  parentCgroup: undefined,
  missing: [],
};

const NAMESPACES = ['--net', '--ipc', '--uts'];
const OPEN_FILES = 1024;
/** Translated code, QEMU's own memory, and page cache of the guest's disks, which the kernel takes back when it must. */
const OVERHEAD_MIB = 320;
/** QEMU reads and writes disks with up to 64 threads; the rest is its own. */
const THREADS = 80;
const CPU_PERIOD_US = 100_000;

/** Finds out, by trying, what can be had here. @param site what it would use where the daemon is root */
export async function probeConfinement(site: {
  readonly uids: UidRange;
  readonly parentCgroup: string;
  readonly usesKvm: boolean;
}): Promise<Confinement> {
  const isRoot = process.getuid?.() === 0;
  const kind = isRoot ? 'root' : 'user';
  const [separate, bounded] = await Promise.all([
    fault('unshare', [...unshareOptions(kind), '--', 'true']),
    isRoot ? fault('setpriv', [...setprivOptions(true, undefined, []), '--', 'true']) : 'not root',
  ]);
  const dropsCapabilities = bounded === undefined;
  const owned = isRoot ? await userFault(dropsCapabilities, site) : 'the daemon is not root';
  const limited = isRoot ? await cgroupFault(site.parentCgroup) : 'the daemon is not root';
  const parts = [
    ['network, IPC and host name of its own', separate],
    ['a user for every microVM', owned],
    ['limits of memory, processes and processor time', limited],
  ] as const;
  return {
    namespaces: separate === undefined ? kind : 'none',
    dropsCapabilities,
    uids: owned === undefined ? site.uids : undefined,
    parentCgroup: limited === undefined ? site.parentCgroup : undefined,
    missing: parts.flatMap(([part, why]) => (why === undefined ? [] : [`${part} (${why})`])),
  };
}

/** @returns why it does not work */
async function fault(program: string, args: readonly string[]): Promise<string | undefined> {
  return run(program, [...args], { env: {} }).then(
    () => undefined,
    (error: Error & { stderr?: string }) => (error.stderr || error.message).trim().split('\n').at(-1),
  );
}

async function userFault(
  dropsCapabilities: boolean,
  { uids, usesKvm }: { readonly uids: UidRange; readonly usesKvm: boolean },
): Promise<string | undefined> {
  const groups = usesKvm ? await kvmGroups() : [];
  if (groups === undefined) return '/dev/kvm is for root alone: give it to a group, "chgrp kvm" and "chmod 660"';
  return fault('setpriv', [...setprivOptions(dropsCapabilities, uids.first, groups), '--', 'true']);
}

/** Those with which a user may use KVM; never root's. @returns undefined where none is enough */
async function kvmGroups(): Promise<number[] | undefined> {
  const kvm = await stat('/dev/kvm').catch(() => undefined);
  if (kvm === undefined || (kvm.mode & 0o006) === 0o006) return [];
  return kvm.gid !== 0 && (kvm.mode & 0o060) === 0o060 ? [kvm.gid] : undefined;
}

async function cgroupFault(parent: string): Promise<string | undefined> {
  const controllers = await readFile('/sys/fs/cgroup/cgroup.controllers', 'utf8').catch(() => undefined);
  if (controllers === undefined) return '/sys/fs/cgroup is not cgroup v2';
  const trial = new Cgroup(parent, 'trial');
  try {
    // Of a daemon that was killed here.
    await trial.end();
    await trial.create(limitsOf({ memoryMib: 1, vcpus: 1 }));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  } finally {
    await trial.end();
    removeIfEmpty(parent);
  }
}

/** Of one microVM. A guest that does its worst reaches its own limits and nobody else's. */
const limitsOf = ({ memoryMib, vcpus }: MachineSize): Readonly<Record<string, string>> => ({
  'memory.max': String((memoryMib + OVERHEAD_MIB) * 1024 * 1024),
  'memory.swap.max': '0',
  'pids.max': String(vcpus + THREADS),
  // One processor's time for each vCPU; half of one for QEMU's own threads.
  'cpu.max': `${vcpus * CPU_PERIOD_US + CPU_PERIOD_US / 2} ${CPU_PERIOD_US}`,
});

const unshareOptions = (kind: 'root' | 'user'): string[] =>
  kind === 'user' ? ['--user', '--map-current-user', ...NAMESPACES] : NAMESPACES;

/** @param uid and gid; undefined leaves them. @param groups beside it */
const setprivOptions = (dropsCapabilities: boolean, uid: number | undefined, groups: readonly number[]): string[] => [
  ...['--no-new-privs', '--inh-caps=-all'],
  ...(dropsCapabilities ? ['--bounding-set=-all'] : []),
  ...(uid === undefined
    ? []
    : [`--reuid=${uid}`, `--regid=${uid}`, groups.length > 0 ? `--groups=${groups.join(',')}` : '--clear-groups']),
];

/** The jails of one daemon's microVMs. */
export class QemuJails {
  readonly #confinement: Confinement;
  readonly #uids: Uids | undefined;
  readonly #open = new Set<string>();

  constructor(confinement: Confinement) {
    this.#confinement = confinement;
    this.#uids = confinement.uids && new Uids(confinement.uids);
  }

  /** @param name of the microVM. @throws capacity_unavailable */
  make(name: string): QemuJail {
    const jail = this.#jail(name, this.#uids?.take());
    this.#open.add(name);
    return jail;
  }

  /** Of a microVM that an earlier daemon started with this uid, and that {@link hold} takes over. */
  find(name: string, uid: number | undefined): QemuJail {
    return this.#jail(name, uid);
  }

  hold(jail: QemuJail): void {
    this.#open.add(jail.name);
    if (jail.uid !== undefined) this.#uids?.claim(jail.uid);
  }

  /** Ends what runs in the cgroup of a microVM that nobody holds. */
  async reap(name: string): Promise<void> {
    const { parentCgroup } = this.#confinement;
    if (parentCgroup === undefined) return;
    await new Cgroup(parentCgroup, name).end();
    if (this.#open.size === 0) removeIfEmpty(parentCgroup);
  }

  /** The same for cgroups that are all that is left of a microVM. @param owned names. @returns how many */
  async reapOthers(owned: ReadonlySet<string>): Promise<number> {
    const { parentCgroup } = this.#confinement;
    const names = parentCgroup === undefined ? [] : await cgroupsIn(parentCgroup);
    const others = names.filter((name) => parseIncarnationId(name) !== undefined && !owned.has(name));
    for (const name of others) await this.reap(name);
    return others.length;
  }

  #jail(name: string, uid: number | undefined): QemuJail {
    return new QemuJail(this.#confinement, name, uid, async () => {
      this.#open.delete(name);
      await this.reap(name);
      if (uid !== undefined) this.#uids?.release(uid);
    });
  }
}

type Files = { readonly memory: string; readonly images: readonly string[] };

/** Adds to the rights of a file. */
async function allow(path: string, rights: number): Promise<void> {
  const mode = (await stat(path)).mode & 0o777;
  if ((mode & rights) !== rights) await chmod(path, mode | rights);
}

export class QemuJail {
  readonly name: string;
  readonly uid: number | undefined;
  readonly #confinement: Confinement;
  readonly #cgroup: Cgroup | undefined;
  readonly #close: () => Promise<void>;
  #closed: Promise<void> | undefined;
  #groups: readonly number[] = [];
  #fileBytes: number | undefined;

  constructor(confinement: Confinement, name: string, uid: number | undefined, close: () => Promise<void>) {
    this.#confinement = confinement;
    this.name = name;
    this.uid = uid;
    this.#close = close;
    const { parentCgroup } = confinement;
    this.#cgroup = parentCgroup === undefined ? undefined : new Cgroup(parentCgroup, name);
  }

  /** @param directory of the microVM, with its overlay in it. @param files what QEMU is handed open, and opens again */
  async prepare(directory: string, size: MachineSize, files: Files): Promise<void> {
    const overlay = join(directory, FILES.overlay);
    this.#fileBytes = (await stat(overlay)).size;
    await this.#cgroup?.create(limitsOf(size));
    if (this.uid === undefined) return;
    await chown(overlay, this.uid, this.uid);
    await chmod(overlay, 0o600);
    await chown(directory, 0, this.uid);
    // Sticky: what is not its own it can neither rename nor remove.
    await chmod(directory, 0o1770);
    // QEMU before 8.2 opens what it maps privately for writing, too. The directory keeps everybody out who was not handed a descriptor.
    await allow(files.memory, 0o666);
    for (const path of files.images) await allow(path, 0o444);
    this.#groups = (await kvmGroups()) ?? [];
  }

  /** The program that becomes `binary`, and its arguments. */
  command(binary: string, args: readonly string[]): [string, string[]] {
    const { namespaces, dropsCapabilities } = this.#confinement;
    const limits = ['--core=0', `--nofile=${OPEN_FILES}`];
    if (this.#fileBytes !== undefined) limits.push(`--fsize=${this.#fileBytes}`);
    const [program = '', ...rest] = [
      ...(namespaces === 'none' ? [] : ['unshare', ...unshareOptions(namespaces), '--']),
      ...['prlimit', ...limits, '--'],
      ...['setpriv', ...setprivOptions(dropsCapabilities, this.uid, this.#groups), '--', binary, ...args],
    ];
    return [program, rest];
  }

  /** Puts the process under its limits; before its guest runs. @param directory that its disks are on */
  async enter(pid: number, directory: string, disk: DiskLimits): Promise<void> {
    await this.#cgroup?.limitDisk(directory, ioMaxOf(disk));
    await this.#cgroup?.add(pid);
    await giveUpOomProtection(pid);
  }

  /**
   * Takes the directory from QEMU, whose sockets are there by now: it can make, rename and remove nothing from here on. Before its guest runs it is
   * believed. Idempotent.
   * @throws Error when its sockets are none, as in a directory that an older daemon left open
   */
  async lock(directory: string): Promise<void> {
    if (this.uid === undefined) return;
    await chmod(directory, 0o710);
    for (const name of [FILES.control, FILES.egress, FILES.qmp]) {
      const found = await lstat(join(directory, name));
      if (!found.isSocket() || found.uid !== this.uid) throw new Error(`${name} is not QEMU's socket`);
    }
  }

  /** When QEMU has ended. Idempotent. @throws teardown_incomplete */
  close(): Promise<void> {
    this.#closed ??= this.#close().catch((error: unknown) => {
      this.#closed = undefined;
      throw error;
    });
    return this.#closed;
  }
}

/**
 * One jail: a directory with the files of one microVM, a uid and gid of its own, a cgroup, and the Firecracker that the jailer starts in them.
 *
 *     <jails>/<name>/vmm.json      whose jail it is; ours alone
 *     <jails>/<name>/stderr.log    what the jailer says, and the guest's console while a template is made
 *     <jails>/<name>/root/         Firecracker's `/`, which it owns: nothing in it is believed, and no link in it followed
 */
import { spawn } from 'node:child_process';
import { chmod, chown, link, lstat, mkdir, open, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { Cgroup, cgroupsIn, removeIfEmpty } from '../host/cgroup.ts';
import { assertPlainFile, copySparse } from '../host/files.ts';
import { type DiskLimits, FILES, ioMaxOf, type Limits } from './machine.ts';
import type { FirecrackerBinaries } from './version.ts';

const RECORD = 'vmm.json';
const STDERR = 'stderr.log';
const DIAGNOSTICS_BYTES = 8 * 1024;
const JAILER_DEADLINE_MS = 30_000;

/** An incarnation's with a hyphen, or a template's under way. Cgroups of other names beside them are not jails'. */
const JAIL_NAME = /^(vm|template)-/;

const JailRecord = z.object({ uid: z.number().int().positive(), templateKey: z.string() });
export type JailRecord = z.infer<typeof JailRecord>;

/** Where the jails of one daemon are. */
export type JailSite = {
  readonly binaries: FirecrackerBinaries;
  /** The jailer's `--chroot-base-dir`; it puts a directory of Firecracker's name between it and the jails. */
  readonly baseDirectory: string;
  /** Relative to the mount of cgroup v2. */
  readonly parentCgroup: string;
  /** Of every microVM. */
  readonly disk: DiskLimits;
};

export class Jail {
  readonly name: string;
  readonly directory: string;
  readonly root: string;
  readonly cgroup: Cgroup;
  readonly record: JailRecord;
  readonly #site: JailSite;

  private constructor(site: JailSite, { executable, name }: JailPlace, record: JailRecord) {
    this.#site = site;
    this.name = name;
    this.record = record;
    this.directory = join(jailsOf(site.baseDirectory, executable), name);
    this.root = join(this.directory, 'root');
    this.cgroup = new Cgroup(site.parentCgroup, name);
  }

  /** Makes the directory and says whose it is, before anything runs in it. */
  static async create(site: JailSite, name: string, record: JailRecord): Promise<Jail> {
    const jail = new Jail(site, { executable: basename(site.binaries.firecracker), name }, record);
    await mkdir(jail.directory, { recursive: true, mode: 0o700 });
    await mkdir(jail.root, { mode: 0o700 });
    const partial = join(jail.directory, `${RECORD}.partial`);
    await writeFile(partial, JSON.stringify(record), { mode: 0o600 });
    await rename(partial, join(jail.directory, RECORD));
    return jail;
  }

  /** @returns undefined when its record is missing or torn: then it never ran */
  static async find(site: JailSite, place: JailPlace): Promise<Jail | undefined> {
    const path = join(jailsOf(site.baseDirectory, place.executable), place.name, RECORD);
    const record = parsed(await readFile(path, 'utf8').catch(() => ''));
    return record && new Jail(site, place, record);
  }

  /** Lets Firecracker read a file of ours, without a copy. The file must be on the same filesystem, and readable by all. @throws boot_failed */
  async linkIn(from: string, name: string): Promise<void> {
    await link(from, join(this.root, name)).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EXDEV') throw cause;
      throw new InstaVMError('boot_failed', `${from} and ${this.root} are on different filesystems`, {
        cause,
        hint: 'Firecracker needs the cache directory and the data directory on one filesystem.',
      });
    });
  }

  /** Gives Firecracker a copy of its own to write to. */
  async copyIn(from: string, name: string): Promise<void> {
    await copySparse(from, join(this.root, name));
    await this.#own(join(this.root, name));
  }

  /**
   * Takes over a file that Firecracker wrote: read-only from now on, and ours.
   * @throws Error when it is not a plain file
   */
  async takeOut(name: string, to: string): Promise<void> {
    await rename(join(this.root, name), to);
    await assertPlainFile(to);
    await chown(to, 0, 0);
    await chmod(to, 0o444);
  }

  /** As {@link takeOut}, leaving the original to Firecracker. The microVM must be held. */
  async copyOut(name: string, to: string): Promise<void> {
    await copySparse(join(this.root, name), to);
    await assertPlainFile(to);
    await chown(to, 0, 0);
    await chmod(to, 0o444);
  }

  async remove(name: string): Promise<void> {
    await rm(join(this.root, name), { force: true });
  }

  /**
   * Starts Firecracker. Resolves when it runs under the jail's uid; its API socket comes a moment later.
   * @param keepConsole guest console and Firecracker's output go to `stderr.log`, without a limit: for guests of ours alone
   * @returns its pid on the host
   * @throws boot_failed
   */
  async start(limits: Limits, keepConsole: boolean): Promise<number> {
    const log = join(this.root, FILES.log);
    await writeFile(log, '', { mode: 0o600 });
    await this.#own(log);
    const stderr = await open(join(this.directory, STDERR), 'a', 0o600);
    try {
      await this.#runJailer(limits, stderr.fd, keepConsole ? stderr.fd : 'ignore');
    } finally {
      await stderr.close();
    }
    // The jailer is gone, so what is in the cgroup is Firecracker; the pid file in the jail is Firecracker's to change.
    const [pid, ...others] = await this.cgroup.processes();
    if (pid !== undefined && others.length === 0) return pid;
    throw new InstaVMError('boot_failed', 'Firecracker ended while it was starting', {
      details: { diagnostics: await this.diagnostics() },
    });
  }

  /** What the kernel lets Firecracker have of the disk, beside what it lets the guest have. */
  async limitDisk(limits: DiskLimits = this.#site.disk): Promise<void> {
    await this.cgroup.limitDisk(this.directory, ioMaxOf(limits));
  }

  /** What Firecracker is to let the guest have of each disk. */
  get disk(): DiskLimits {
    return this.#site.disk;
  }

  #runJailer(limits: Limits, stderr: number, stdout: number | 'ignore'): Promise<void> {
    const { binaries, baseDirectory, parentCgroup } = this.#site;
    const id = String(this.record.uid);
    const args = [
      ...['--id', this.name, '--exec-file', binaries.firecracker, '--uid', id, '--gid', id],
      ...['--chroot-base-dir', baseDirectory, '--new-pid-ns'],
      ...['--cgroup-version', '2', '--parent-cgroup', parentCgroup],
      ...['--cgroup', `memory.max=${limits.memoryBytes}`, '--cgroup', 'memory.swap.max=0'],
      ...['--cgroup', `pids.max=${limits.pids}`, '--cgroup', `cpu.max=${limits.cpuMax}`],
      ...['--resource-limit', `no-file=${limits.openFiles}`],
      '--',
      ...['--api-sock', FILES.api, '--log-path', FILES.log, '--level', 'Warning'],
    ];
    return new Promise((resolve, reject) => {
      // A session of its own: signals for the daemon's terminal do not reach it, and it outlives the daemon.
      const child = spawn(binaries.jailer, args, {
        cwd: '/',
        detached: true,
        env: {},
        stdio: ['ignore', stdout, stderr],
        timeout: JAILER_DEADLINE_MS,
        killSignal: 'SIGKILL',
      });
      const fail = async (why: string, cause?: Error): Promise<void> => {
        const details = { diagnostics: await this.diagnostics() };
        reject(new InstaVMError('boot_failed', `the jailer ${why}`, { details, ...(cause && { cause }) }));
      };
      child.once('error', (error) => fail('cannot be run', error));
      child.once('exit', (code, signal) =>
        code === 0 ? resolve() : fail(`ended (${signal ?? `exit status ${code}`})`),
      );
    });
  }

  /** Ends whatever runs in it and removes it. Idempotent. @throws teardown_incomplete */
  async destroy(): Promise<void> {
    await this.cgroup.end();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** The end of what jailer, guest and Firecracker said. */
  async diagnostics(): Promise<string> {
    const tails = [join(this.directory, STDERR), join(this.root, FILES.log)].map(tail);
    return (await Promise.all(tails)).join('');
  }

  async #own(path: string): Promise<void> {
    await chown(path, this.record.uid, this.record.uid);
    await chmod(path, 0o600);
  }
}

/** @param executable the file's name: releases may bear their version in it, and jails of the one before are where it was put */
const jailsOf = (baseDirectory: string, executable: string): string => join(baseDirectory, executable);

export type JailPlace = { readonly executable: string; readonly name: string };

/** All that there are, of every executable. */
export async function findJails(baseDirectory: string): Promise<JailPlace[]> {
  const found: JailPlace[] = [];
  for (const executable of await entriesOf(baseDirectory))
    for (const name of await entriesOf(jailsOf(baseDirectory, executable))) found.push({ executable, name });
  return found;
}

/**
 * Ends what runs in jails that nobody holds, and removes them, whole or not: also one of which nothing but the cgroup is left.
 * @param owned names
 * @returns how many
 */
export async function reapJails(
  baseDirectory: string,
  parentCgroup: string,
  owned: ReadonlySet<string>,
): Promise<number> {
  const reaped = new Set<string>();
  for (const { executable, name } of await findJails(baseDirectory)) {
    if (owned.has(name)) continue;
    await new Cgroup(parentCgroup, name).end();
    await rm(join(jailsOf(baseDirectory, executable), name), { recursive: true, force: true });
    reaped.add(name);
  }
  for (const name of await cgroupsIn(parentCgroup)) {
    if (!JAIL_NAME.test(name) || owned.has(name)) continue;
    await new Cgroup(parentCgroup, name).end();
    reaped.add(name);
  }
  if (owned.size === 0) removeIfEmpty(parentCgroup);
  return reaped.size;
}

const entriesOf = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);

/** Of a file that may be anything: a link or a FIFO is not opened. */
async function tail(path: string): Promise<string> {
  const found = await lstat(path).catch(() => undefined);
  if (found?.isFile() !== true) return '';
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.slice(-DIAGNOSTICS_BYTES);
}

function parsed(text: string): JailRecord | undefined {
  try {
    return JailRecord.parse(JSON.parse(text));
  } catch {
    // Torn or foreign: it proves nothing.
    return undefined;
  }
}

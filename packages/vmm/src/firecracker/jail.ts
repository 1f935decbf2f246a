/**
 * One jail: a directory with the files of one microVM, a uid and gid of its own, a cgroup, and the Firecracker that the jailer starts in them.
 *
 *     <jails>/<name>/vmm.json      whose jail it is; ours alone
 *     <jails>/<name>/stderr.log    what the jailer and Firecracker say, a FIFO; a file while a template is made, with the guest's console
 *     <jails>/<name>/memory.base  the pages in which its memory was other than the template's when Firecracker began to count those that are written to
 *     <jails>/<name>/root/         Firecracker's `/`. It owns the files that it writes to, whose contents are not believed; which files there are,
 *                                  and what is behind their names, is ours to say from before the guest runs
 */
import { spawn } from 'node:child_process';
import { chmod, chown, constants, lchown, link, lstat, mkdir, open, rename, rm, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import type { VmmObserver } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { Cgroup, removeIfEmpty } from '../host/cgroup.ts';
import { assertPlainFile, copySparse, tailOf } from '../host/files.ts';
import { giveUpOomProtection } from '../host/oom.ts';
import { readCounts } from './counts.ts';
import { type FifoReader, makeFifos } from './fifo.ts';
import { JAIL_RECORD, type JailPlace, type JailRecord, jailsOf, readJailRecord } from './jails.ts';
import { FifoLog } from './log.ts';
import { type DiskLimits, FILES, type Limits } from './machine.ts';
import { emptyNetwork } from './network.ts';
import type { FirecrackerBinaries } from './version.ts';

const STDERR = 'stderr.log';
const MEMORY_BASE = 'memory.base';
const DIAGNOSTICS_BYTES = 8 * 1024;
/** The directories that the jailer gives Firecracker. */
const DIRECTORIES = ['dev', 'dev/net', 'run'];
/** Of the device state, which is some kilobytes. */
const MAX_STATE_BYTES = 16 * 1024 * 1024;
const JAILER_DEADLINE_MS = 30_000;

/** Where the jails of one daemon are. */
export type JailSite = {
  readonly binaries: FirecrackerBinaries;
  /** The jailer's `--chroot-base-dir`; it puts a directory of Firecracker's name between it and the jails. */
  readonly baseDirectory: string;
  /** Relative to the mount of cgroup v2. */
  readonly parentCgroup: string;
  /** Of every microVM. */
  readonly disk: DiskLimits;
  readonly observer: VmmObserver;
};

export class Jail {
  readonly name: string;
  readonly directory: string;
  readonly root: string;
  readonly cgroup: Cgroup;
  readonly record: JailRecord;
  readonly #site: JailSite;
  #said: FifoLog | undefined;
  #log: FifoLog | undefined;
  #counts: FifoReader | undefined;

  private constructor(site: JailSite, { executable, name }: JailPlace, record: JailRecord) {
    this.#site = site;
    this.name = name;
    this.record = record;
    this.directory = join(jailsOf(site.baseDirectory, executable), name);
    this.root = join(this.directory, 'root');
    this.cgroup = new Cgroup(record.parentCgroup ?? site.parentCgroup, name);
  }

  /** Makes the directory and says whose it is, before anything runs in it. Nothing is left when it cannot be made. */
  static async create(site: JailSite, name: string, own: Omit<JailRecord, 'parentCgroup'>): Promise<Jail> {
    const record: JailRecord = { ...own, parentCgroup: site.parentCgroup };
    const jail = new Jail(site, { executable: basename(site.binaries.firecracker), name }, record);
    try {
      await mkdir(jail.directory, { recursive: true, mode: 0o700 });
      await mkdir(jail.root, { mode: 0o700 });
      const partial = join(jail.directory, `${JAIL_RECORD}.partial`);
      await writeFile(partial, JSON.stringify(record), { mode: 0o600 });
      await rename(partial, join(jail.directory, JAIL_RECORD));
      return jail;
    } catch (error) {
      // One that is there already is somebody's.
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST')
        await rm(jail.directory, { recursive: true, force: true });
      throw error;
    }
  }

  /** @returns undefined when its record is missing or torn: then it never ran */
  static async find(site: JailSite, place: JailPlace): Promise<Jail | undefined> {
    const record = await readJailRecord(site.baseDirectory, place);
    return record && new Jail(site, place, record);
  }

  /** Lets Firecracker read a file of ours, without a copy. The file must be on the same filesystem, and readable by all. @throws boot_failed */
  async linkIn(from: string, name: string): Promise<void> {
    await link(from, join(this.root, name)).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code !== 'EXDEV') throw cause;
      throw new InstaVMError('boot_failed', 'templates and microVMs are on different filesystems', {
        cause,
        hint: 'Firecracker needs INSTAVM_CACHE_DIR and INSTAVM_DATA_DIR on one filesystem.',
      });
    });
  }

  /** Gives Firecracker a copy of its own to write to. */
  async copyIn(from: string, name: string): Promise<void> {
    await copySparse(from, join(this.root, name));
    await this.#own(join(this.root, name));
  }

  /**
   * Takes over a file that Firecracker wrote: read-only from now on, and ours. One that runs may have it open still, and write to it.
   * @throws Error when it is not a plain file
   */
  async takeOut(name: string, to: string): Promise<void> {
    await rename(join(this.root, name), to);
    await assertPlainFile(to);
    await chown(to, 0, 0);
    await chmod(to, 0o444);
  }

  /**
   * As {@link takeOut}, leaving the original to Firecracker. The microVM must be held.
   * @throws Error when it is not a plain file, or larger
   */
  async copyOut(name: string, to: string, maxBytes?: number): Promise<void> {
    await copySparse(join(this.root, name), to);
    await assertPlainFile(to, maxBytes);
    await chown(to, 0, 0);
    await chmod(to, 0o444);
  }

  /** Copies the device state of a snapshot out. @throws Error when it is too large to be one */
  copyStateOut(to: string): Promise<void> {
    return this.copyOut(FILES.deviceState, to, MAX_STATE_BYTES);
  }

  /** An empty file of this size for Firecracker to write to, also where it may make none. */
  async makeFile(name: string, bytes: number): Promise<string> {
    const path = join(this.root, name);
    await this.remove(name);
    const file = await open(path, 'wx', 0o600);
    await file.truncate(bytes).finally(() => file.close());
    await this.#own(path);
    return path;
  }

  /**
   * From now on Firecracker counts the pages that are written to from this memory.
   * @param delta of a snapshot; undefined: the template's own. The file may be deleted afterwards
   */
  async setMemoryBase(delta: string | undefined): Promise<void> {
    const path = join(this.directory, MEMORY_BASE);
    if (delta === undefined) await writeFile(path, '', { flag: 'wx', mode: 0o600 });
    else await link(delta, path);
  }

  /** @returns a file that `setMemoryBase` made, empty for the template's own memory; undefined: nobody knows what is counted from */
  async memoryBase(): Promise<string | undefined> {
    const path = join(this.directory, MEMORY_BASE);
    return lstat(path).then(
      () => path,
      () => undefined,
    );
  }

  /** Before Firecracker forgets what it has counted. */
  async forgetMemoryBase(): Promise<void> {
    await rm(join(this.directory, MEMORY_BASE), { force: true });
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
    const fifos = [FILES.log, FILES.counts].map((name) => join(this.root, name));
    const said = join(this.directory, STDERR);
    await makeFifos(...fifos, ...(keepConsole ? [] : [said]));
    for (const fifo of fifos) await this.#own(fifo);
    this.listen();
    // What finds no room in the FIFO is lost, and nobody waits for it.
    const stderr = await open(said, keepConsole ? 'a' : constants.O_RDWR | constants.O_NONBLOCK, 0o600);
    try {
      await this.#runJailer(limits, stderr.fd, keepConsole ? stderr.fd : 'ignore');
    } finally {
      await stderr.close();
    }
    // The jailer is gone, so what is in the cgroup is Firecracker; the pid file in the jail is Firecracker's to change.
    const [pid, ...others] = await this.cgroup.processes();
    if (pid !== undefined && others.length === 0) {
      await giveUpOomProtection(pid);
      return pid;
    }
    throw new InstaVMError('boot_failed', 'Firecracker ended while it was starting', {
      details: { diagnostics: await this.diagnostics() },
    });
  }

  /**
   * Takes the directories from Firecracker: it can make, rename and remove nothing from here on. Before its guest runs it is believed.
   * @throws Error when its sockets are none, as in a jail that an older daemon left open
   */
  async lock(): Promise<void> {
    await chown(this.root, 0, 0);
    await chmod(this.root, 0o711);
    for (const name of DIRECTORIES)
      await lchown(join(this.root, name), 0, 0).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOENT') throw error;
      });
    for (const name of [FILES.api, FILES.vsock]) {
      const found = await lstat(join(this.root, name));
      if (!found.isSocket() || found.uid !== this.record.uid) throw new Error(`${name} is not Firecracker's socket`);
    }
  }

  /** What Firecracker is to let the guest have of each disk. */
  get disk(): DiskLimits {
    return this.#site.disk;
  }

  async #runJailer(limits: Limits, stderr: number, stdout: number | 'ignore'): Promise<void> {
    // The largest file that it writes is the overlay, which it does not make larger, or the memory.
    const { size } = await lstat(join(this.root, FILES.overlay));
    const { binaries, baseDirectory, parentCgroup } = this.#site;
    const id = String(this.record.uid);
    const network = await emptyNetwork();
    const args = [
      ...['--id', this.name, '--exec-file', binaries.firecracker, '--uid', id, '--gid', id],
      ...['--chroot-base-dir', baseDirectory, '--new-pid-ns', '--netns', network],
      ...['--cgroup-version', '2', '--parent-cgroup', parentCgroup],
      ...['--cgroup', `memory.max=${limits.memoryBytes}`, '--cgroup', 'memory.swap.max=0'],
      ...['--cgroup', `pids.max=${limits.pids}`, '--cgroup', `cpu.max=${limits.cpuMax}`],
      ...['--resource-limit', `no-file=${limits.openFiles}`],
      ...['--resource-limit', `fsize=${Math.max(limits.memoryBytes, size)}`],
      '--',
      ...['--api-sock', FILES.api, '--log-path', FILES.log, '--level', 'Warning'],
      ...['--metrics-path', FILES.counts],
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
    const { parentCgroup } = this.record;
    // Of an earlier name of this daemon's directory: nobody makes another in it.
    if (parentCgroup !== undefined && parentCgroup !== this.#site.parentCgroup) removeIfEmpty(parentCgroup);
    this.stopListening();
    await rm(this.directory, { recursive: true, force: true });
  }

  /** Begins to read what Firecracker says and counts; until {@link stopListening}. */
  listen(): void {
    this.#said ??= new FifoLog(join(this.directory, STDERR));
    this.#log ??= new FifoLog(join(this.root, FILES.log));
    this.#counts ??= readCounts(join(this.root, FILES.counts), (counts) => this.#site.observer(this.name, counts));
  }

  /** What it said is kept, and what it counted has been told. */
  stopListening(): void {
    this.#said?.close();
    this.#log?.close();
    this.#counts?.drain();
    this.#counts?.close();
  }

  /** The end of what jailer, guest and Firecracker said. */
  async diagnostics(): Promise<string> {
    return (
      (await tailOf(join(this.directory, STDERR), DIAGNOSTICS_BYTES)) +
      (this.#said?.tail() ?? '') +
      (this.#log?.tail() ?? '')
    );
  }

  async #own(path: string): Promise<void> {
    await chown(path, this.record.uid, this.record.uid);
    await chmod(path, 0o600);
  }
}

/**
 * One QEMU process and its directory. The directory carries the incarnation's name and exists before the process does, so
 * whatever a dead daemon left can be found: a process belongs to a directory when it works there under that `-name`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readdir, realpath, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmmExit } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { tailOf } from '../host/files.ts';
import { tryConnect } from '../host/sockets.ts';
import { DESCRIPTORS, FILES } from './arguments.ts';
import { endIfAlive, isAlive, observed, type ProcessIdentity, type VmmIdentity, worksIn } from './identity.ts';
import type { QemuJail } from './jail.ts';

const DIAGNOSTICS_BYTES = 8 * 1024;
const CONNECT_POLL_MS = 2;
const KILL_DEADLINE_MS = 10_000;

/** How often a VMM that is no child of this process is looked at. */
const WATCH_INTERVAL_MS = 250;

/** VMMs that must not outlive this process (templates in the making), ended with it however it exits. */
const bound = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of bound) child.kill('SIGKILL');
});

/** A process as its owner needs it; it may be a child, or one that an earlier daemon started. */
type Handle = {
  readonly pid: number | undefined;
  readonly ended: Promise<{ code: number | null; signal: string | null; error?: Error }>;
  kill(): void;
};

/** Paths of the files that QEMU is handed on `DESCRIPTORS`. */
export type HandedOver = Readonly<Partial<Record<keyof typeof DESCRIPTORS, string>>>;

export type SpawnOptions = {
  readonly files: HandedOver;
  readonly jail: QemuJail;
  /** Ends with this process. */
  readonly isBound?: boolean;
};

export class QemuProcess {
  readonly directory: string;
  readonly exited: Promise<VmmExit>;
  readonly #handle: Handle;
  readonly #jail: QemuJail;
  #requested = false;
  #gone = false;

  private constructor(directory: string, handle: Handle, jail: QemuJail) {
    this.directory = directory;
    this.#handle = handle;
    this.#jail = jail;
    this.exited = handle.ended.then(async ({ code, signal, error }) => {
      this.#gone = true;
      const diagnostics = error?.message ?? (await tailOf(join(directory, FILES.stderr), DIAGNOSTICS_BYTES));
      return { code, signal, requested: this.#requested, diagnostics };
    });
  }

  static spawn(binary: string, args: readonly string[], directory: string, options: SpawnOptions): QemuProcess {
    return new QemuProcess(directory, spawned(binary, args, directory, options), options.jail);
  }

  /** One that an earlier daemon started in `directory`, whose identity was proven. */
  static adopt(directory: string, identity: VmmIdentity, jail: QemuJail): QemuProcess {
    return new QemuProcess(directory, adopted(identity), jail);
  }

  get pid(): number | undefined {
    return this.#handle.pid;
  }

  /**
   * Connects to one of QEMU's sockets as soon as it listens.
   * @throws boot_failed when QEMU ends first, or after `deadlineMs`
   */
  async connect(name: string, deadlineMs: number): Promise<Socket> {
    const until = performance.now() + deadlineMs;
    for (;;) {
      const socket = await tryConnect(this.directory, name);
      if (socket !== undefined) return socket;
      if (this.#gone) {
        const { diagnostics } = await this.exited;
        throw new InstaVMError('boot_failed', 'QEMU ended while it was starting', { details: { diagnostics } });
      }
      if (performance.now() > until) {
        throw new InstaVMError('boot_failed', `QEMU did not open its ${name} within ${deadlineMs} ms`);
      }
      await sleep(CONNECT_POLL_MS);
    }
  }

  /** Ends the process unless it has ended; keeps the directory. */
  async exitedOrKilled(): Promise<void> {
    if (!this.#gone) this.#handle.kill();
    await this.exited;
    await this.#jail.close();
  }

  /** @throws teardown_incomplete when the process survives SIGKILL for ten seconds */
  async kill(): Promise<void> {
    this.#requested = true;
    if (!this.#gone) this.#handle.kill();
    // Holds the event loop: a daemon that is just starting has nothing else that would, while it waits for one that it took over.
    const waiting = new AbortController();
    const late = sleep(KILL_DEADLINE_MS, 'late', { signal: waiting.signal }).catch(() => 'ended');
    const first = await Promise.race([this.exited, late]);
    waiting.abort();
    if (first === 'late') throw new InstaVMError('teardown_incomplete', `QEMU (pid ${this.pid}) does not end`);
    await this.#jail.close();
    await rm(this.directory, { recursive: true, force: true });
  }
}

function spawned(binary: string, args: readonly string[], directory: string, options: SpawnOptions): Handle {
  const [program, rest] = options.jail.command(binary, args);
  const opened: number[] = [];
  const open = (path: string, flags: string): number => {
    const descriptor = openSync(path, flags, 0o600);
    opened.push(descriptor);
    return descriptor;
  };
  let child: ChildProcess;
  try {
    const stdio: ('ignore' | number)[] = ['ignore', 'ignore', open(join(directory, FILES.stderr), 'a')];
    for (const [name, descriptor] of Object.entries(DESCRIPTORS)) {
      const path = options.files[name as keyof typeof DESCRIPTORS];
      stdio[descriptor] = path === undefined ? 'ignore' : open(path, 'r');
    }
    // A session of its own: signals for the daemon's terminal do not reach it, and it outlives the daemon.
    child = spawn(program, rest, { cwd: directory, detached: true, env: {}, stdio });
  } finally {
    for (const descriptor of opened) closeSync(descriptor);
  }
  if (options.isBound) bound.add(child);
  const ended: Handle['ended'] = new Promise((resolve) => {
    child.once('exit', (code, signal) => resolve({ code, signal }));
    child.once('error', (error) => resolve({ code: null, signal: null, error }));
  });
  void ended.then(() => bound.delete(child));
  return { pid: child.pid, ended, kill: () => child.kill('SIGKILL') };
}

/** Its end is seen, its exit status belongs to whoever is its parent now. */
function adopted(identity: VmmIdentity): Handle {
  const ended: Handle['ended'] = new Promise((resolve) => {
    const watch = setInterval(async () => {
      if (await isAlive(identity)) return;
      clearInterval(watch);
      resolve({ code: null, signal: null });
    }, WATCH_INTERVAL_MS);
    watch.unref();
  });
  // One that may not be ended shows as one that does not end.
  const kill = (): void => void endIfAlive(identity).catch(() => {});
  return { pid: identity.pid, ended, kill };
}

/**
 * Ends the processes that work in `directory` under the name of one of its entries, then removes the entries; not those that are `owned`.
 * @param endOthers what else belongs to an entry
 */
export async function reapDirectory(
  directory: string,
  owned: ReadonlySet<string>,
  endOthers: (name: string) => Promise<void>,
): Promise<number> {
  const names = (await readdir(directory).catch(() => [])).filter((name) => !owned.has(name));
  for (const name of names) {
    const own = join(directory, name);
    for (const process of await processesIn(own)) await endProcess(process);
    await endOthers(name);
    await rm(own, { recursive: true, force: true });
  }
  return names.length;
}

async function processesIn(directory: string): Promise<ProcessIdentity[]> {
  const [own, entries] = await Promise.all([realpath(directory), readdir('/proc')]);
  const found: ProcessIdentity[] = [];
  for (const pid of entries.filter((entry) => /^\d+$/.test(entry)).map(Number)) {
    const seen = (await worksIn(pid, own)) ? await observed(pid) : undefined;
    // Asked again: the pid may have been another's when it was seen.
    if (seen !== undefined && (await worksIn(pid, own))) found.push(seen);
  }
  return found;
}

/** @throws teardown_incomplete */
async function endProcess(identity: ProcessIdentity): Promise<void> {
  for (const until = performance.now() + KILL_DEADLINE_MS; performance.now() < until; await sleep(5))
    if (!(await endIfAlive(identity))) return;
  const { pid } = identity;
  throw new InstaVMError('teardown_incomplete', `a VMM process of an earlier daemon (pid ${pid}) does not end`);
}

/**
 * One QEMU process and its directory. The directory carries the incarnation's name and exists before the process does, so
 * whatever a dead daemon left can be found: a process belongs to a directory when it works there under that `-name`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readdir, realpath, rm } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmmExit } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { tailOf } from '../host/files.ts';
import { tryConnect } from '../host/sockets.ts';
import { strayDescriptors } from '../host/stray-descriptors.ts';
import { DESCRIPTORS, FILES } from './arguments.ts';
import {
  endIfAlive,
  isAlive,
  observed,
  type ProcessIdentity,
  REMOVED,
  type VmmIdentity,
  workplaceOf,
} from './identity.ts';
import type { QemuJail } from './jail.ts';

const DIAGNOSTICS_BYTES = 8 * 1024;
const CONNECT_POLL_MS = 2;
/** Between the close of its sockets and its end. */
const EXIT_MS = 2_000;
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

  /** What an answer that a QEMU which was just started did not give means. */
  async startFailure(error: unknown): Promise<unknown> {
    if (!(error instanceof InstaVMError) || error.code !== 'internal') return error;
    const exit = await Promise.race([this.exited, sleep(EXIT_MS)]);
    const why = exit === undefined ? error.message : 'QEMU ended while it was starting';
    const details = { diagnostics: exit?.diagnostics ?? '' };
    return new InstaVMError('boot_failed', why, { cause: error, details });
  }

  /** An empty file for it to write to. @returns where it is; QEMU knows it by its name */
  async offer(name: string): Promise<string> {
    const path = join(this.directory, name);
    await this.#jail.offer(path);
    return path;
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
    const stdio: ('ignore' | number | undefined)[] = ['ignore', 'ignore', open(join(directory, FILES.stderr), 'a')];
    for (const [name, descriptor] of Object.entries(DESCRIPTORS)) {
      const path = options.files[name as keyof typeof DESCRIPTORS];
      if (path !== undefined) stdio[descriptor] = open(path, 'r');
    }
    // What somebody left open in the daemon is none of QEMU's business: it has the empty device in that place.
    const nothing = open('/dev/null', 'r');
    for (const descriptor of strayDescriptors()) stdio[descriptor] ??= nothing;
    const filled = Array.from(stdio, (each) => each ?? 'ignore');
    // A session of its own: signals for the daemon's terminal do not reach it, and it outlives the daemon.
    child = spawn(program, rest, { cwd: directory, detached: true, env: {}, stdio: filled });
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
      // When nobody can tell, it is looked at again.
      if (await isAlive(identity).catch(() => true)) return;
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
 * Ends the processes that work below `directory` under the name of the entry that they work in, also where that is gone, and removes the entries;
 * not those that are `owned`.
 * @param endOthers what else belongs to an entry
 * @returns how many there were
 */
export async function reapDirectory(
  directory: string,
  owned: ReadonlySet<string>,
  endOthers: (name: string) => Promise<void>,
): Promise<number> {
  const running = await processesBelow(directory);
  const entries = await readdir(directory).catch(() => []);
  const names = [...new Set([...entries, ...running.keys()])].filter((name) => !owned.has(name));
  for (const name of names) {
    for (const process of running.get(name) ?? []) await endProcess(process);
    await endOthers(name);
    await rm(join(directory, name), { recursive: true, force: true });
  }
  return names.length;
}

/** By the name of the entry. */
async function processesBelow(directory: string): Promise<Map<string, ProcessIdentity[]>> {
  // One that was removed may have been what its name says.
  const parent = await realpath(directory).catch(() => directory);
  const found = new Map<string, ProcessIdentity[]>();
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry)).map(Number)) {
    const workplace = await workplaceOf(pid);
    const own = workplace?.replace(REMOVED, '');
    if (own === undefined || dirname(own) !== parent) continue;
    const seen = await observed(pid);
    // Asked again: the pid may have been another's when it was seen.
    if (seen === undefined || (await workplaceOf(pid)) !== workplace) continue;
    const name = basename(own);
    found.set(name, [...(found.get(name) ?? []), seen]);
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

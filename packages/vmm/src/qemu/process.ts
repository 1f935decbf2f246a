/**
 * One QEMU process and its directory. The directory carries the incarnation's name and exists before the process does, so
 * whatever a dead daemon left can be found: a process belongs to a directory when it works there under that `-name`.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { open, readdir, readFile, readlink, rm } from 'node:fs/promises';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { VmmExit } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { FILES } from './arguments.ts';

const DIAGNOSTICS_BYTES = 8 * 1024;
const CONNECT_POLL_MS = 2;
/** `sockaddr_un.sun_path` less its NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;
const KILL_DEADLINE_MS = 10_000;

/** Ended with this process, however it exits, as long as no later daemon could take them over. Only SIGKILL leaves them to the reaper. */
const living = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of living) child.kill('SIGKILL');
});

export class QemuProcess {
  readonly directory: string;
  readonly exited: Promise<VmmExit>;
  readonly #child: ChildProcess;
  #requested = false;
  #gone = false;

  /** @param statePath the device state to hand over on `STATE_DESCRIPTOR` */
  constructor(binary: string, args: readonly string[], directory: string, statePath?: string) {
    this.directory = directory;
    const stderr = openSync(join(directory, FILES.stderr), 'a', 0o600);
    const state = statePath === undefined ? undefined : openSync(statePath, 'r');
    try {
      this.#child = spawn(binary, args, {
        cwd: directory,
        // A session of its own: signals for the daemon's terminal do not reach it.
        detached: true,
        env: {},
        stdio: ['ignore', 'ignore', stderr, ...(state === undefined ? [] : [state])],
      });
    } finally {
      closeSync(stderr);
      if (state !== undefined) closeSync(state);
    }
    living.add(this.#child);
    this.exited = new Promise((resolve) => {
      const finish = async (code: number | null, signal: string | null, error?: Error): Promise<void> => {
        this.#gone = true;
        living.delete(this.#child);
        const diagnostics = error?.message ?? (await tail(join(directory, FILES.stderr)));
        resolve({ code, signal, requested: this.#requested, diagnostics });
      };
      this.#child.once('exit', (code, signal) => void finish(code, signal));
      this.#child.once('error', (error) => void finish(null, null, error));
    });
  }

  get pid(): number | undefined {
    return this.#child.pid;
  }

  /**
   * Connects to one of QEMU's sockets as soon as it listens.
   * @throws boot_failed when QEMU ends first, or after `deadlineMs`
   */
  async connect(name: string, deadlineMs: number): Promise<Socket> {
    const until = performance.now() + deadlineMs;
    const path = await shortPath(this.directory, name);
    try {
      for (;;) {
        const socket = await tryConnect(path.path);
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
    } finally {
      await path.release();
    }
  }

  /** Ends the process unless it has ended; keeps the directory. */
  async exitedOrKilled(): Promise<void> {
    if (!this.#gone) this.#child.kill('SIGKILL');
    await this.exited;
  }

  /** @throws teardown_incomplete when the process survives SIGKILL for ten seconds */
  async kill(): Promise<void> {
    this.#requested = true;
    if (!this.#gone) this.#child.kill('SIGKILL');
    const late = sleep(KILL_DEADLINE_MS, 'late', { ref: false });
    if ((await Promise.race([this.exited, late])) === 'late') {
      throw new InstaVMError('teardown_incomplete', `QEMU (pid ${this.pid}) does not end`);
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** A socket path that fits `sun_path`: through an open descriptor of the directory when the directory's own is too long. */
async function shortPath(directory: string, name: string): Promise<{ path: string; release(): Promise<void> }> {
  const path = join(directory, name);
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH) return { path, release: async () => {} };
  const handle = await open(directory, 'r');
  return { path: `/proc/self/fd/${handle.fd}/${name}`, release: () => handle.close() };
}

function tryConnect(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.off('error', onError);
      resolve(socket);
    });
    // Not there or not listening yet; the caller knows when to give up.
    const onError = (): void => resolve(undefined);
    socket.once('error', onError);
  });
}

async function tail(path: string): Promise<string> {
  const text = await readFile(path, 'utf8').catch(() => '');
  return text.slice(-DIAGNOSTICS_BYTES);
}

/** Ends the processes that work in `directory` under the name of one of its entries, then removes the entries. */
export async function reapDirectory(directory: string): Promise<number> {
  const names = await readdir(directory).catch(() => []);
  for (const name of names) {
    const own = join(directory, name);
    for (const pid of await processesIn(own, name)) await endProcess(pid);
    await rm(own, { recursive: true, force: true });
  }
  return names.length;
}

async function processesIn(directory: string, name: string): Promise<number[]> {
  const pids = (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry));
  const found: number[] = [];
  for (const pid of pids) {
    // A process may end between two reads, and others' may be unreadable: neither is one of ours.
    const cwd = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
    if (cwd !== directory) continue;
    const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
    if (command.includes(`-name\0${name}\0`)) found.push(Number(pid));
  }
  return found;
}

async function endProcess(pid: number): Promise<void> {
  for (const until = performance.now() + KILL_DEADLINE_MS; performance.now() < until; await sleep(5)) {
    try {
      process.kill(pid, 'SIGKILL');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
      throw error;
    }
    const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
    // A zombie is its parent's to reap; it holds nothing of ours any more.
    if (stat === '' || /\) Z /.test(stat)) return;
  }
  throw new InstaVMError('teardown_incomplete', `a VMM process of an earlier daemon (pid ${pid}) does not end`);
}

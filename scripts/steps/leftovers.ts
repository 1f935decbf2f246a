/**
 * Finds processes that outlive the command that started them. Every program of a run has the run's own directory for temporary files; what
 * was told so, works there or was given a path there was started by the run, and what is still there afterwards was left behind. The
 * environment alone would not do: a VMM gets none.
 */
import { chmodSync, mkdtempSync } from 'node:fs';
import { readdir, readFile, readlink, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** A process that was told to end may take this long, on a machine busy with emulation. */
const SETTLE_MS = 60_000;

export type Leftover = { readonly pid: number; readonly command: string };

export class TestRun {
  /** A short one: paths of sockets lie in it. */
  readonly directory = mkdtempSync(join(tmpdir(), 'ivm-'));

  constructor() {
    // As `/tmp` is passed through by users of microVMs.
    chmodSync(this.directory, 0o711);
  }

  /** To be added to the environment of every program of the run. */
  get env(): Readonly<Record<string, string>> {
    return { TMPDIR: this.directory };
  }

  /** @returns the processes of this run that do not end by themselves within `settleMs` */
  async leftovers(settleMs = SETTLE_MS): Promise<Leftover[]> {
    const deadline = performance.now() + settleMs;
    for (;;) {
      const found = await this.#scan();
      if (found.length === 0 || performance.now() > deadline) return found;
      await sleep(200);
    }
  }

  /** At once. One may end with another one. */
  end(leftovers: readonly Leftover[]): void {
    for (const { pid } of leftovers) {
      try {
        process.kill(pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
    }
  }

  /** When nothing of it runs any more. */
  remove(): Promise<void> {
    return rm(this.directory, { recursive: true, force: true });
  }

  async #scan(): Promise<Leftover[]> {
    const found: Leftover[] = [];
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      // Other users' processes cannot be read, and any process may end while we look: neither is ours.
      const read = (file: string): Promise<string> => readFile(`/proc/${name}/${file}`, 'utf8').catch(() => '');
      const command = await read('cmdline');
      // One that has ended has no command any more.
      if (command === '') continue;
      const cwd = await readlink(`/proc/${name}/cwd`).catch(() => '');
      const isOurs =
        `${cwd}/`.startsWith(`${this.directory}/`) ||
        command.includes(`${this.directory}/`) ||
        (await read('environ')).split('\0').includes(`TMPDIR=${this.directory}`);
      if (isOurs) found.push({ pid: Number(name), command: command.replaceAll('\0', ' ').trim().slice(0, 200) });
    }
    return found;
  }
}

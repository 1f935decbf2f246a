/**
 * Finds processes that outlive the command that started them. Every program of a run inherits a variable with the run's own
 * value; whatever still has it in `/proc/<pid>/environ` afterwards was left behind.
 */
import { randomUUID } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

/** By its prefix no setting of a daemon's, which refuses those that it does not know. */
const VARIABLE = 'INSTAVM_TEST_RUN_MARK';
/** A process that was told to end may take this long, on a machine busy with emulation. */
const SETTLE_MS = 5_000;

export type Leftover = { readonly pid: number; readonly command: string };

export class RunMark {
  readonly #value = randomUUID();

  /** To be added to the environment of every program of the run. */
  get env(): Readonly<Record<string, string>> {
    return { [VARIABLE]: this.#value };
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

  async #scan(): Promise<Leftover[]> {
    const found: Leftover[] = [];
    for (const name of await readdir('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      // Other users' processes cannot be read, and any process may end while we look: neither is ours.
      const environment = await readFile(`/proc/${name}/environ`, 'latin1').catch(() => '');
      if (!environment.split('\0').includes(`${VARIABLE}=${this.#value}`)) continue;
      const command = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
      if (command) found.push({ pid: Number(name), command: command.replaceAll('\0', ' ').trim().slice(0, 200) });
    }
    return found;
  }
}

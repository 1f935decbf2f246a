/** DNS-01 (RFC 8555 §8.4) through a program of the operator's: `HOOK add|remove _acme-challenge.NAME VALUE`, back when every name server has it. */
import { spawn } from 'node:child_process';
import type { LifecycleLog } from '@instavm/core';
import type { Proof, Solver } from './solver.ts';
import { plain } from './transport.ts';

/** Zones are slow; the order as a whole has its own limit. */
const ADD_TIMEOUT_MS = 180_000;
/** A record that stays does no harm, and a daemon that stops waits for this. */
const REMOVE_TIMEOUT_MS = 20_000;
const OUTPUT_KEPT_BYTES = 4_096;
const OUTPUT_SHOWN_CHARS = 300;

export class DnsHookSolver implements Solver {
  readonly type = 'dns-01';
  readonly #program: string;
  readonly #log: LifecycleLog;

  constructor(program: string, log: LifecycleLog) {
    this.#program = program;
    this.#log = log;
  }

  async present({ domain, value }: Proof, signal: AbortSignal): Promise<() => Promise<void>> {
    const record = [`_acme-challenge.${domain}`, value] as const;
    const remove = (): Promise<void> =>
      this.#run(['remove', ...record], REMOVE_TIMEOUT_MS).catch((error: unknown) =>
        this.#log.warn({ err: error, domain }, 'the DNS hook did not remove its record'),
      );
    try {
      await this.#run(['add', ...record], ADD_TIMEOUT_MS, signal);
    } catch (error) {
      this.#log.warn({ err: error, domain }, 'the DNS hook did not add its record');
      await remove(); // it may have been added all the same
      throw error;
    }
    return remove;
  }

  /** @throws with how it ended and the last it said */
  #run(args: readonly string[], timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const timeout = AbortSignal.timeout(timeoutMs);
    const stop = signal ? AbortSignal.any([signal, timeout]) : timeout;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // A group of its own, so that what a script has started ends with it.
    const child = spawn(this.#program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
    // One for which there are no descriptors left has neither.
    const output = [child.stdout, child.stderr].filter((stream) => stream !== undefined);
    const kill = (): void => {
      try {
        if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL');
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
      }
      // Something that left the group may hold the pipes.
      for (const stream of output) stream.destroy();
    };
    stop.addEventListener('abort', kill, { once: true });
    if (stop.aborted) kill();
    let said = Buffer.alloc(0);
    for (const stream of output) {
      stream.on('data', (chunk: Buffer) => {
        said = Buffer.concat([said, chunk]).subarray(-OUTPUT_KEPT_BYTES);
      });
    }
    child.once('error', (error) => reject(new Error(`the DNS hook cannot be started: ${error.message}`)));
    child.once('close', (status, signalName) => {
      if (status === 0) return resolve();
      const how = timeout.aborted ? `took more than ${timeoutMs / 1_000} s` : `ended with ${status ?? signalName}`;
      const tail = plain(said.toString().trim().slice(-OUTPUT_SHOWN_CHARS), OUTPUT_SHOWN_CHARS);
      reject(new Error(`the DNS hook ${how}${tail === '' ? '' : `: ${tail}`}`));
    });
    return promise.finally(() => stop.removeEventListener('abort', kill));
  }
}

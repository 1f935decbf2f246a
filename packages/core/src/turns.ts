/**
 * Who may restore a microVM now. Restoring keeps a processor busy: many at once would all be late, in turn the first are soon there. A turn that lasts
 * is no work of the host's but a guest that keeps silent, or a template that is made, and others do not wait for those.
 */
import pLimit from 'p-limit';
import type { Clock } from './clock.ts';

/** Many times what a restore takes with hardware virtualisation, and what most take without. */
const LONGEST_TURN_MS = 5_000;

export class Turns {
  readonly #clock: Clock;
  readonly #limit: ReturnType<typeof pLimit>;

  constructor(clock: Clock, atOnce: number) {
    this.#clock = clock;
    this.#limit = pLimit(atOnce);
  }

  get active(): number {
    return this.#limit.activeCount;
  }

  get waiting(): number {
    return this.#limit.pendingCount;
  }

  /** @throws as `work` */
  async take<T>(work: () => Promise<T>): Promise<T> {
    const { working } = await this.#limit(async () => {
      // In an object: returned as it is, it would be waited for.
      const working = work();
      await this.#overOrLate(working);
      return { working };
    });
    return working;
  }

  #overOrLate(working: Promise<unknown>): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.schedule(new Date(this.#clock.now().getTime() + LONGEST_TURN_MS), resolve);
      const over = (): void => {
        cancel();
        resolve();
      };
      working.then(over, over);
    });
  }
}

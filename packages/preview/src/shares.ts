/**
 * What is under way to each share: its connections, the exchanges that hold them, and why each was let in, so that it ends with that reason.
 * Nothing is kept of a share that nobody visits.
 */
import type { LifecycleLog, Withdrawal } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import type { Admission } from './access.ts';
import { ServicePool } from './service-pool.ts';
import type { PreviewTarget } from './targets.ts';

/** Longer than the pool keeps idle connections. */
const FORGET_AFTER_MS = 10_000;

/** Of one exchange. */
type Visit = { readonly by: Admission; readonly end: () => void };
type Visited = { readonly pool: ServicePool; readonly visits: Set<Visit>; forget: NodeJS.Timeout | undefined };

export class Shares {
  readonly #visited = new Map<string, Visited>();
  /** Being judged by what was read before a withdrawal, once `isStale`. */
  readonly #judging = new Set<{ readonly shareId: string | undefined; isStale: boolean }>();
  readonly #limit: number;
  readonly #connectTimeoutMs: number;
  readonly #log: LifecycleLog;

  constructor(limit: number, connectTimeoutMs: number, log: LifecycleLog) {
    this.#limit = limit;
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#log = log;
  }

  /**
   * Does with what `judge` finds as `enter` says, in the same turn: who enters then is ended by any later withdrawal. Judged again when something of
   * the share was withdrawn before.
   * @param shareId undefined where `judge` finds out which share it is
   */
  async judged<T>(shareId: string | undefined, judge: () => Promise<T>, enter: (found: T) => void): Promise<void> {
    for (;;) {
      const judging = { shareId, isStale: false };
      this.#judging.add(judging);
      try {
        const found = await judge();
        if (!judging.isStale) return enter(found);
      } finally {
        this.#judging.delete(judging);
      }
    }
  }

  /**
   * @param end ends the exchange at once
   * @throws rate_limited
   */
  enter(target: PreviewTarget, by: Admission, end: () => void): { readonly pool: ServicePool; leave(): void } {
    const { shareId } = target;
    const visited = this.#visited.get(shareId) ?? {
      pool: new ServicePool(target, this.#connectTimeoutMs, this.#log),
      visits: new Set(),
      forget: undefined,
    };
    if (visited.visits.size >= this.#limit) {
      throw new InstaVMError('rate_limited', `${this.#limit} requests to this preview are under way.`);
    }
    this.#visited.set(shareId, visited);
    clearTimeout(visited.forget);
    visited.pool.target = target;
    const visit = { by, end };
    visited.visits.add(visit);
    return { pool: visited.pool, leave: () => this.#leave(shareId, visited, visit) };
  }

  /** Ends what rests on it, at once. */
  withdraw(shareId: string, what: Withdrawal): void {
    for (const judging of this.#judging) if ((judging.shareId ?? shareId) === shareId) judging.isStale = true;
    if (what === 'share') this.#drop(shareId);
    else for (const { by, end } of [...(this.#visited.get(shareId)?.visits ?? [])]) if (by === what) end();
  }

  close(): void {
    for (const shareId of [...this.#visited.keys()]) this.#drop(shareId);
  }

  #drop(shareId: string): void {
    const visited = this.#visited.get(shareId);
    if (!visited) return;
    this.#visited.delete(shareId);
    clearTimeout(visited.forget);
    for (const { end } of [...visited.visits]) end();
    visited.pool.destroy();
  }

  #leave(shareId: string, visited: Visited, visit: Visit): void {
    visited.visits.delete(visit);
    if (visited.visits.size > 0 || this.#visited.get(shareId) !== visited) return;
    visited.forget = setTimeout(() => this.#drop(shareId), FORGET_AFTER_MS);
    visited.forget.unref();
  }
}

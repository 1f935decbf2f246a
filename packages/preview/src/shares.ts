/** What is under way to each share: its connections and how many exchanges hold them. Nothing is kept of a share that nobody visits. */
import type { LifecycleLog } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { ServicePool } from './service-pool.ts';
import type { PreviewTarget } from './targets.ts';

/** Longer than the pool keeps idle connections. */
const FORGET_AFTER_MS = 10_000;

type Visited = { readonly pool: ServicePool; readonly under: Set<() => void>; forget: NodeJS.Timeout | undefined };

export class Shares {
  readonly #visited = new Map<string, Visited>();
  readonly #limit: number;
  readonly #connectTimeoutMs: number;
  readonly #log: LifecycleLog;

  constructor(limit: number, connectTimeoutMs: number, log: LifecycleLog) {
    this.#limit = limit;
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#log = log;
  }

  /**
   * @param end ends the exchange at once
   * @throws rate_limited
   */
  enter(target: PreviewTarget, end: () => void): { readonly pool: ServicePool; leave(): void } {
    const { shareId } = target;
    const visited = this.#visited.get(shareId) ?? {
      pool: new ServicePool(target, this.#connectTimeoutMs, this.#log),
      under: new Set(),
      forget: undefined,
    };
    if (visited.under.size >= this.#limit) {
      throw new InstaVMError('rate_limited', `${this.#limit} requests to this preview are under way.`);
    }
    this.#visited.set(shareId, visited);
    clearTimeout(visited.forget);
    visited.pool.target = target;
    visited.under.add(end);
    return { pool: visited.pool, leave: () => this.#leave(shareId, visited, end) };
  }

  drop(shareId: string): void {
    const visited = this.#visited.get(shareId);
    if (!visited) return;
    this.#visited.delete(shareId);
    clearTimeout(visited.forget);
    for (const end of visited.under) end();
    visited.pool.destroy();
  }

  close(): void {
    for (const shareId of [...this.#visited.keys()]) this.drop(shareId);
  }

  #leave(shareId: string, visited: Visited, end: () => void): void {
    visited.under.delete(end);
    if (visited.under.size > 0 || this.#visited.get(shareId) !== visited) return;
    visited.forget = setTimeout(() => this.drop(shareId), FORGET_AFTER_MS);
    visited.forget.unref();
  }
}

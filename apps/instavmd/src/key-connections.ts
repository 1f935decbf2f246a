/**
 * What is open by each API key: requests that are not answered yet, streams, WebSockets. They end when the right does: at once when the key is
 * revoked or replaced, within a second when it expires.
 */
import type { Caller } from './auth.ts';

const LOOK_INTERVAL_MS = 1_000;

type Connection = { until: Date | null; readonly cut: () => void };

export class KeyConnections {
  readonly #open = new Map<number, Set<Connection>>();
  /** For who was let in just before. */
  readonly #revoked = new Set<number>();
  readonly #looking: NodeJS.Timeout;
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#looking = setInterval(() => this.#cutExpired(), LOOK_INTERVAL_MS);
    this.#looking.unref();
  }

  /** @param cut ends it; called once at most. @returns to be called when it is over */
  hold({ keyId, expiresAt: until }: Pick<Caller, 'keyId' | 'expiresAt'>, cut: () => void): () => void {
    if (keyId === null) return () => {};
    if (this.#revoked.has(keyId)) {
      cut();
      return () => {};
    }
    const connection = { until, cut };
    const ofKey = this.#open.get(keyId) ?? new Set();
    this.#open.set(keyId, ofKey);
    ofKey.add(connection);
    return () => {
      ofKey.delete(connection);
      if (ofKey.size === 0 && this.#open.get(keyId) === ofKey) this.#open.delete(keyId);
    };
  }

  /** The right of what is open ends then; null: it does not. */
  endAt(keyId: number, until: Date | null): void {
    for (const connection of this.#open.get(keyId) ?? []) connection.until = until;
  }

  /** Ends all that is open by a key, and all that would be. */
  revoke(keyId: number): void {
    this.#revoked.add(keyId);
    this.cut(keyId);
  }

  /** Ends all that is open by a key. */
  cut(keyId: number): void {
    const ofKey = this.#open.get(keyId) ?? [];
    this.#open.delete(keyId);
    for (const { cut } of ofKey) cut();
  }

  stop(): void {
    clearInterval(this.#looking);
  }

  #cutExpired(): void {
    const now = this.#now();
    for (const ofKey of this.#open.values())
      for (const connection of ofKey) {
        if (connection.until === null || connection.until.getTime() > now) continue;
        ofKey.delete(connection);
        connection.cut();
      }
  }
}

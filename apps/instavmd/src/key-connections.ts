/**
 * What is open by each API key and each signed-in browser: requests that are not answered yet, streams, WebSockets, previews. They end when the
 * right does: at once when the key is revoked or replaced and when the browser is signed out, within a second when the key or the sign-in expires
 * or the grace of a secret that was replaced is over.
 */
import type { Caller } from './auth.ts';

const LOOK_INTERVAL_MS = 1_000;
/** From the look at a key or a cookie to the start of what it opens. */
const OPENING_MS = 60_000;

declare const brand: unique symbol;
/** What somebody is here by. */
export type Right = string & { readonly [brand]: 'Right' };
export const keyRight = (keyId: number): Right => `key ${keyId}` as Right;
export const signInRight = (signInId: string): Right => `sign-in ${signInId}` as Right;

export type Holder = Pick<Caller, 'keyId' | 'signInId' | 'expiresAt' | 'secretEndsAt'>;

/** @returns undefined for who is here by nothing that can end */
export function rightOf({ keyId, signInId }: Pick<Holder, 'keyId' | 'signInId'>): Right | undefined {
  if (keyId !== null) return keyRight(keyId);
  return signInId === null ? undefined : signInRight(signInId);
}

type Connection = { rightEnds: Date | null; secretEnds: Date | null; readonly cut: () => void };

export class KeyConnections {
  readonly #open = new Map<Right, Set<Connection>>();
  /** For who was let in just before, with when that was. */
  readonly #revoked = new Map<Right, number>();
  readonly #ends = new Map<Right, { readonly until: Date | null; readonly at: number }>();
  readonly #looking: NodeJS.Timeout;
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
    this.#looking = setInterval(() => this.#look(), LOOK_INTERVAL_MS);
    this.#looking.unref();
  }

  /** @param cut ends it; called once at most. @returns to be called when it is over */
  hold(holder: Holder, cut: () => void): () => void {
    const right = rightOf(holder);
    if (right === undefined) return () => {};
    if (this.#revoked.has(right)) {
      cut();
      return () => {};
    }
    const changed = this.#ends.get(right);
    const rightEnds = changed === undefined ? holder.expiresAt : changed.until;
    const connection = { rightEnds, secretEnds: holder.secretEndsAt, cut };
    const ofRight = this.#open.get(right) ?? new Set();
    this.#open.set(right, ofRight);
    ofRight.add(connection);
    return () => {
      ofRight.delete(connection);
      if (ofRight.size === 0 && this.#open.get(right) === ofRight) this.#open.delete(right);
    };
  }

  /** The right of what is open, and of who was let in just before, ends then; null: it does not. */
  endAt(right: Right, until: Date | null): void {
    this.#ends.set(right, { until, at: this.#now() });
    for (const connection of this.#open.get(right) ?? []) connection.rightEnds = until;
  }

  /** The key has another secret: what is open by one of before goes with that, and nothing makes it last longer. */
  replaced(right: Right, secretEnds: Date): void {
    for (const connection of this.#open.get(right) ?? [])
      connection.secretEnds = earlier(connection.secretEnds, secretEnds);
  }

  /** Ends all that is open by it, and all that would be. */
  revoke(right: Right): void {
    this.#revoked.set(right, this.#now());
    this.cut(right);
  }

  /** Ends all that is open by it. */
  cut(right: Right): void {
    const ofRight = this.#open.get(right) ?? [];
    this.#open.delete(right);
    for (const { cut } of ofRight) cut();
  }

  stop(): void {
    clearInterval(this.#looking);
  }

  #look(): void {
    const now = this.#now();
    for (const [right, at] of this.#revoked) if (now - at > OPENING_MS) this.#revoked.delete(right);
    for (const [right, { at }] of this.#ends) if (now - at > OPENING_MS) this.#ends.delete(right);
    for (const ofRight of this.#open.values())
      for (const connection of ofRight) {
        if (!isOver(earlier(connection.rightEnds, connection.secretEnds), now)) continue;
        ofRight.delete(connection);
        connection.cut();
      }
  }
}

/** Null is no end. */
export function earlier(one: Date | null, other: Date | null): Date | null {
  if (one === null || other === null) return one ?? other;
  return one < other ? one : other;
}

export const isOver = (end: Date | null, now: number): boolean => end !== null && end.getTime() <= now;

/** Short-lived tokens for clients that cannot send a header with a WebSocket: each opens one terminal, once. Kept in memory only. */
import { createHash, randomBytes } from 'node:crypto';
import type { SandboxId } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import type { Caller } from './auth.ts';
import { earlier, isOver, type Right, rightOf } from './key-connections.ts';

export type PtyGrant = {
  /** By whose right it was made: it ends with that. */
  readonly caller: Caller;
  readonly sandboxId: SandboxId;
  readonly ptyId: string;
  readonly readOnly: boolean;
};

const LIFETIME_MS = 60_000;
/** Far more than browsers open in a minute. */
const MAX_TOKENS = 10_000;

type Entry = { readonly grant: PtyGrant; readonly expiresAt: number };

export class PtyTokens {
  /** By digest: what a look-up compares is not the secret. In order of expiry. */
  readonly #entries = new Map<string, Entry>();
  readonly #now: () => number;

  constructor(now: () => number = Date.now) {
    this.#now = now;
  }

  /** @throws rate_limited */
  issue(grant: PtyGrant): { token: string; expiresAt: Date } {
    this.#forgetExpired();
    if (this.#entries.size >= MAX_TOKENS) throw new InstaVMError('rate_limited', 'too many unused terminal tokens');
    const token = randomBytes(32).toString('base64url');
    const expiresAt = this.#now() + LIFETIME_MS;
    this.#entries.set(digest(token), { grant, expiresAt });
    return { token, expiresAt: new Date(expiresAt) };
  }

  /** Takes the token out of circulation. @returns undefined for an unknown, used or expired one */
  redeem(token: string): PtyGrant | undefined {
    const key = digest(token);
    const entry = this.#entries.get(key);
    this.#entries.delete(key);
    if (entry === undefined || entry.expiresAt <= this.#now()) return undefined;
    const { expiresAt, secretEndsAt } = entry.grant.caller;
    return isOver(earlier(expiresAt, secretEndsAt), this.#now()) ? undefined : entry.grant;
  }

  /** Those that were made by a right which has ended. */
  forget(right: Right): void {
    for (const [key, { grant }] of this.#entries) if (rightOf(grant.caller) === right) this.#entries.delete(key);
  }

  #forgetExpired(): void {
    for (const [key, { expiresAt }] of this.#entries) {
      if (expiresAt > this.#now()) return;
      this.#entries.delete(key);
    }
  }
}

const digest = (token: string): string => createHash('sha256').update(token).digest('hex');

/** How often an account may ask and make, and a stranger try keys, by the minute. Kept in memory: a restart forgives. */
import type { AccountId } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { limitedAs } from './client-address.ts';
import type { QuotaBook } from './quota-book.ts';

const WINDOW_SECONDS = 60;
/** Of requests whose key is not valid, from one address. */
const FAILURES_PER_MINUTE = 600;

const window = () => new RateLimiterMemory({ points: Number.MAX_SAFE_INTEGER, duration: WINDOW_SECONDS });

export class RateLimits {
  readonly #quotas: Pick<QuotaBook, 'valuesOf'>;
  readonly #requests = window();
  readonly #creates = window();
  readonly #failures = window();

  constructor(quotas: Pick<QuotaBook, 'valuesOf'>) {
    this.#quotas = quotas;
  }

  /** @throws rate_limited */
  async request(accountId: AccountId): Promise<void> {
    const { requests_per_minute } = await this.#quotas.valuesOf(accountId);
    await take(this.#requests, accountId, 1, requests_per_minute, 'requests');
  }

  /** @param count of sandboxes that are to be made. @throws rate_limited */
  async create(accountId: AccountId, count = 1): Promise<void> {
    const { creates_per_minute } = await this.#quotas.valuesOf(accountId);
    await take(this.#creates, accountId, count, creates_per_minute, 'sandboxes made');
  }

  /** Someone came with no valid key. @throws rate_limited, when that was too often */
  async failure(address: string): Promise<void> {
    await take(this.#failures, limitedAs(address), 1, FAILURES_PER_MINUTE, 'requests without a valid key');
  }
}

async function take(
  limiter: RateLimiterMemory,
  key: string,
  count: number,
  limit: number,
  what: string,
): Promise<void> {
  const { consumedPoints, msBeforeNext } = await limiter.penalty(key, count);
  if (consumedPoints <= limit) return;
  throw new InstaVMError('rate_limited', `too many ${what}: ${limit} a minute are allowed`, {
    details: { retryAfterMs: Math.max(1, msBeforeNext), limit },
  });
}

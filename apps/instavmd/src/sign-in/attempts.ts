/** How often strangers may try: guesses of one password, and everything else that costs a password hash or makes something. */
import { InstaVMError } from '@instavm/wire';
import { RateLimiterMemory } from 'rate-limiter-flexible';

export type AttemptLimits = { readonly guesses: number; readonly perAddress: number; readonly accounts: number };

/** Behind a proxy all browsers have its address: the limit per address must leave room for a whole team. */
export const ATTEMPT_LIMITS: AttemptLimits = { guesses: 10, perAddress: 100, accounts: 20 };
const WINDOW_SECONDS = 15 * 60;

export class Attempts {
  readonly #guesses: RateLimiterMemory;
  readonly #perAddress: RateLimiterMemory;
  readonly #accounts: RateLimiterMemory;

  constructor(limits: AttemptLimits = ATTEMPT_LIMITS) {
    this.#guesses = new RateLimiterMemory({ points: limits.guesses, duration: WINDOW_SECONDS });
    this.#perAddress = new RateLimiterMemory({ points: limits.perAddress, duration: WINDOW_SECONDS });
    this.#accounts = new RateLimiterMemory({ points: limits.accounts, duration: WINDOW_SECONDS });
  }

  /** One more guess at the password of this account from this address. @throws rate_limited */
  async guess(address: string, email: string): Promise<void> {
    await take(this.#perAddress, address);
    await take(this.#guesses, `${address} ${email.toLowerCase()}`);
  }

  /** The guess was right. */
  async forgive(address: string, email: string): Promise<void> {
    await this.#guesses.delete(`${address} ${email.toLowerCase()}`);
  }

  /** Anything else that is asked without an account. @throws rate_limited */
  async knock(address: string): Promise<void> {
    await take(this.#perAddress, address);
  }

  /** @throws rate_limited */
  async signUp(address: string): Promise<void> {
    await take(this.#accounts, address);
  }
}

async function take(limiter: RateLimiterMemory, key: string): Promise<void> {
  try {
    await limiter.consume(key);
  } catch (error) {
    const { msBeforeNext } = error as { msBeforeNext?: number };
    if (msBeforeNext === undefined) throw error;
    throw new InstaVMError('rate_limited', 'too many attempts to sign in', { details: { retryAfterMs: msBeforeNext } });
  }
}

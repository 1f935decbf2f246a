/** How often strangers may try: guesses of one password, and everything else that costs a password hash or makes something. */
import { InstaVMError } from '@instavm/wire';
import { RateLimiterMemory } from 'rate-limiter-flexible';
import { limitedAs } from '../client-address.ts';

/** The people of a whole team may have one address. */
const PER_ADDRESS = 100;
const GUESSES_OF_ONE_ADDRESS = 10;
/** At one account from all addresses together (NIST SP 800-63B §5.2.2). */
const GUESSES = 100;
/** In a day: each account is given credit. */
const ACCOUNTS_PER_ADDRESS = 20;
const WINDOW_SECONDS = 15 * 60;
const DAY_SECONDS = 86_400;

const window = (points: number, duration = WINDOW_SECONDS) => new RateLimiterMemory({ points, duration });

export class Attempts {
  readonly #perAddress = window(PER_ADDRESS);
  readonly #guessesOfOneAddress = window(GUESSES_OF_ONE_ADDRESS);
  readonly #guesses = window(GUESSES);
  readonly #accounts = window(ACCOUNTS_PER_ADDRESS, DAY_SECONDS);

  /** One more guess at the password of this account from this address. @throws rate_limited */
  async guess(address: string, email: string): Promise<void> {
    await take(this.#perAddress, limitedAs(address));
    await take(this.#guessesOfOneAddress, pair(address, email));
    await take(this.#guesses, email.toLowerCase());
  }

  /** The guess was right. */
  async forgive(address: string, email: string): Promise<void> {
    await this.#guessesOfOneAddress.delete(pair(address, email));
    await this.#guesses.delete(email.toLowerCase());
  }

  /** Anything else that is asked without an account. @throws rate_limited */
  async knock(address: string): Promise<void> {
    await take(this.#perAddress, limitedAs(address));
  }

  /** One more account, where anyone may make one. @throws rate_limited */
  async signUp(address: string): Promise<void> {
    await take(this.#accounts, limitedAs(address));
  }
}

const pair = (address: string, email: string): string => `${limitedAs(address)} ${email.toLowerCase()}`;

async function take(limiter: RateLimiterMemory, key: string): Promise<void> {
  try {
    await limiter.consume(key);
  } catch (error) {
    const { msBeforeNext } = error as { msBeforeNext?: number };
    if (msBeforeNext === undefined) throw error;
    throw new InstaVMError('rate_limited', 'too many attempts to sign in', { details: { retryAfterMs: msBeforeNext } });
  }
}

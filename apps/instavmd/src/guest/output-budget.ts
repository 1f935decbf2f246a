/**
 * Memory for output that is collected before it is answered: so much for one command, for all of an account, and for the daemon. A command that
 * needs more is ended with an error that says so; nothing is cut silently.
 */
import { InstaVMError } from '@instavm/wire';

const MIB = 1024 * 1024;
/** More than this belongs in a file or in a streaming exec. */
export const MAX_COLLECTED_BYTES = 256 * MIB;
/** A command may hold what it wrote for as long as it runs. */
const MAX_OF_ACCOUNT_BYTES = 256 * MIB;
const MAX_TOTAL_BYTES = 512 * MIB;
/** What every account has, whatever others hold. */
const ASSURED_BYTES = 8 * MIB;

const taken = new Map<string, number>();
let total = 0;

export class OutputBudget {
  readonly #account: string;
  #taken = 0;
  #isReleased = false;

  constructor(account: string) {
    this.#account = account;
  }

  /** @throws output_too_large, capacity_unavailable */
  take(bytes: number): void {
    // What still comes of a command that nobody waits for is thrown away.
    if (this.#isReleased) return;
    if (this.#taken + bytes > MAX_COLLECTED_BYTES) {
      throw new InstaVMError(
        'output_too_large',
        `the command wrote more than ${MAX_COLLECTED_BYTES} bytes and was ended`,
      );
    }
    const own = (taken.get(this.#account) ?? 0) + bytes;
    if (own > MAX_OF_ACCOUNT_BYTES || (own > ASSURED_BYTES && total + bytes > MAX_TOTAL_BYTES)) {
      throw new InstaVMError(
        'capacity_unavailable',
        'too much output is waiting to be answered; the command was ended',
      );
    }
    this.#add(bytes);
  }

  get takenBytes(): number {
    return this.#taken;
  }

  /** Gives everything back. */
  release(): void {
    this.#add(-this.#taken);
    this.#isReleased = true;
  }

  #add(bytes: number): void {
    this.#taken += bytes;
    total += bytes;
    const own = (taken.get(this.#account) ?? 0) + bytes;
    if (own > 0) taken.set(this.#account, own);
    else taken.delete(this.#account);
  }
}

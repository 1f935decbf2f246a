/**
 * Memory for output that is collected before it is answered: one share per command, one total for the daemon. A command that needs
 * more is ended with an error that says so; nothing is cut silently.
 */
import { InstaVMError } from '@instavm/wire';

/** More than this belongs in a file or in a streaming exec. */
export const MAX_COLLECTED_BYTES = 256 * 1024 * 1024;
const MAX_TOTAL_BYTES = 512 * 1024 * 1024;

let total = 0;

export class OutputBudget {
  #taken = 0;

  /** @throws output_too_large, capacity_unavailable */
  take(bytes: number): void {
    if (this.#taken + bytes > MAX_COLLECTED_BYTES) {
      throw new InstaVMError(
        'output_too_large',
        `the command wrote more than ${MAX_COLLECTED_BYTES} bytes and was ended`,
      );
    }
    if (total + bytes > MAX_TOTAL_BYTES) {
      throw new InstaVMError(
        'capacity_unavailable',
        'too much output is waiting to be answered; the command was ended',
      );
    }
    this.#taken += bytes;
    total += bytes;
  }

  get takenBytes(): number {
    return this.#taken;
  }

  /** Gives everything back. */
  release(): void {
    total -= this.#taken;
    this.#taken = 0;
  }
}

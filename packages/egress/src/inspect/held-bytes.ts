/** Bytes that wait for a decision: bounded, and linear however small the chunks are in which they come. */
import { Disagreement } from './agreement.ts';

const SMALLEST_CAPACITY = 512;

export class HeldBytes {
  readonly #limit: number;
  readonly #what: string;
  #storage = Buffer.alloc(0);
  #length = 0;

  /** @param what names the bytes in the sentence of the mismatch: "…, longer than 65536 bytes" */
  constructor(limit: number, what: string) {
    this.#limit = limit;
    this.#what = what;
  }

  get length(): number {
    return this.#length;
  }

  append(bytes: Buffer): void {
    const length = this.#length + bytes.length;
    if (length > this.#limit)
      throw new Disagreement(`The program sent ${this.#what} of more than ${this.#limit} bytes.`);
    if (length > this.#storage.length) {
      const grown = Buffer.allocUnsafe(Math.min(this.#limit, Math.max(SMALLEST_CAPACITY, length * 2)));
      this.#storage.copy(grown, 0, 0, this.#length);
      this.#storage = grown;
    }
    bytes.copy(this.#storage, this.#length);
    this.#length = length;
  }

  /** A view, valid until the next `append`. */
  view(start = 0, end = this.#length): Buffer {
    return this.#storage.subarray(start, Math.min(end, this.#length));
  }

  /** Hands everything over and starts anew. */
  take(): Buffer {
    const taken = this.view();
    this.#storage = Buffer.alloc(0);
    this.#length = 0;
    return taken;
  }
}

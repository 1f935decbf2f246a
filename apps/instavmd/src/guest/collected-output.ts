/**
 * What a command writes, until it is answered. It is copied: a piece as it came is a view of all of the message that it came in, of which a guest
 * decides how large it is, and as many as a guest likes may be of one byte or of none.
 */
const [FIRST_PIECE_BYTES, LAST_PIECE_BYTES] = [1024, 64 * 1024];

export class CollectedOutput {
  readonly #full: Uint8Array[] = [];
  #open = new Uint8Array(FIRST_PIECE_BYTES);
  #filled = 0;

  add(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      if (this.#filled === this.#open.length) this.#next();
      const part = bytes.subarray(at, at + this.#open.length - this.#filled);
      this.#open.set(part, this.#filled);
      this.#filled += part.length;
      at += part.length;
    }
  }

  /** In order, and no larger than what was written. */
  pieces(): Uint8Array[] {
    return this.#filled === 0 ? [...this.#full] : [...this.#full, this.#open.slice(0, this.#filled)];
  }

  #next(): void {
    this.#full.push(this.#open);
    this.#open = new Uint8Array(Math.min(this.#open.length * 2, LAST_PIECE_BYTES));
    this.#filled = 0;
  }
}

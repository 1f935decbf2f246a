/** A token bucket that all flows of a sandbox share, in both directions. */

/** What may pass at once after a pause. */
const BURST_SECONDS = 0.25;

export class Bandwidth {
  readonly #bytesPerMs: number;
  readonly #now: () => number;
  /** Below zero: borrowed from what is to come. */
  #tokens: number;
  #filledAt: number;

  /** @param bytesPerSecond Infinity: no limit. @param now in ms, growing */
  constructor(bytesPerSecond: number, now: () => number = () => performance.now()) {
    this.#bytesPerMs = bytesPerSecond / 1000;
    this.#now = now;
    this.#tokens = bytesPerSecond * BURST_SECONDS;
    this.#filledAt = now();
  }

  /** Counts bytes that are on their way. @returns how long no more should be read, in ms */
  take(bytes: number): number {
    if (this.#bytesPerMs === Number.POSITIVE_INFINITY) return 0;
    const now = this.#now();
    const burst = this.#bytesPerMs * 1000 * BURST_SECONDS;
    this.#tokens = Math.min(burst, this.#tokens + (now - this.#filledAt) * this.#bytesPerMs) - bytes;
    this.#filledAt = now;
    return this.#tokens >= 0 ? 0 : -this.#tokens / this.#bytesPerMs;
  }
}

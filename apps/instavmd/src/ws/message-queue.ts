/** Messages from a socket to an async consumer, with a mark above which the socket is told to wait. */

/** What a message takes beside its bytes: as many as a client likes may be of one byte or of none. */
const OVERHEAD_BYTES = 256;

export class MessageQueue<T> implements AsyncIterable<T> {
  readonly #items: { readonly item: T; readonly sizeBytes: number }[] = [];
  readonly #highWaterBytes: number;
  readonly #flow: { full(): void; drained(): void };
  #sizeBytes = 0;
  #isFull = false;
  #ended = false;
  #discarding = false;
  #wake: (() => void) | undefined;

  constructor(highWaterBytes: number, flow: { full(): void; drained(): void }) {
    this.#highWaterBytes = highWaterBytes;
    this.#flow = flow;
  }

  push(item: T, sizeBytes: number): void {
    if (this.#discarding) return;
    this.#items.push({ item, sizeBytes });
    this.#sizeBytes += sizeBytes + OVERHEAD_BYTES;
    if (!this.#isFull && this.#sizeBytes > this.#highWaterBytes) {
      this.#isFull = true;
      this.#flow.full();
    }
    this.#wake?.();
  }

  /** What was pushed before is still delivered. */
  end(): void {
    this.#ended = true;
    this.#wake?.();
  }

  /** Gives what waits to another queue, and ends. */
  moveTo(other: MessageQueue<T>): void {
    const items = [...this.#items];
    // First: it lets the socket flow, which the other may have to stop again.
    this.discard();
    for (const { item, sizeBytes } of items) other.push(item, sizeBytes);
  }

  /** Nobody takes anything any more: what waits and what still comes is dropped, and the socket flows. */
  discard(): void {
    this.#discarding = true;
    this.#items.length = 0;
    this.end();
    if (this.#isFull) this.#flow.drained();
    this.#isFull = false;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T> {
    for (;;) {
      const next = this.#items.shift();
      if (next !== undefined) {
        this.#sizeBytes -= next.sizeBytes + OVERHEAD_BYTES;
        if (this.#isFull && this.#sizeBytes < this.#highWaterBytes / 2) {
          this.#isFull = false;
          this.#flow.drained();
        }
        yield next.item;
      } else if (this.#ended) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
        });
        this.#wake = undefined;
      }
    }
  }
}

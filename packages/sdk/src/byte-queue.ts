/** Bytes that arrived and wait for their one reader, with a mark above which the source is told to wait. */
export class ByteQueue implements AsyncIterable<Uint8Array> {
  readonly #chunks: Uint8Array[] = [];
  readonly #highWaterBytes: number;
  readonly #flow: { full(): void; drained(): void };
  #sizeBytes = 0;
  #isFull = false;
  #ended = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  constructor(highWaterBytes: number, flow: { full(): void; drained(): void }) {
    this.#highWaterBytes = highWaterBytes;
    this.#flow = flow;
  }

  push(chunk: Uint8Array): void {
    this.#chunks.push(chunk);
    this.#sizeBytes += chunk.length;
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

  /** Changes nothing after `end`. */
  fail(error: Error): void {
    if (this.#ended) return;
    this.#error = error;
    this.end();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk !== undefined) {
        this.#sizeBytes -= chunk.length;
        if (this.#isFull && this.#sizeBytes < this.#highWaterBytes / 2) {
          this.#isFull = false;
          this.#flow.drained();
        }
        yield chunk;
      } else if (this.#error !== undefined) {
        throw this.#error;
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

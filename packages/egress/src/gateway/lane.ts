/** One direction of a connection: its source is read only as fast as its sink takes the bytes, and as the bandwidth allows. */
import type { Readable, Writable } from 'node:stream';

/** Writes that may wait in the sink. Node counts their bytes only, and a thousand of one byte each are dear. */
const MAX_WAITING = 64;

export class Lane {
  readonly #source: Readable;
  readonly #sink: Writable;
  readonly #onDelivered: (bytes: number) => void;
  #delivered = 0;
  #waiting = 0;
  /** Why the source stands still; either ends by itself, and only the end of both lets it go on. */
  #isFull = false;
  #pace: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** @param onDelivered told of all that the sink hands on */
  constructor(source: Readable, sink: Writable, onDelivered: (bytes: number) => void = () => {}) {
    this.#source = source;
    this.#sink = sink;
    this.#onDelivered = onDelivered;
  }

  /** Bytes that the sink has handed on: what was queued when the connection broke is not among them. */
  get delivered(): number {
    return this.#delivered;
  }

  write(bytes: Buffer): void {
    this.#waiting++;
    const hasRoom = this.#sink.write(bytes, (error) => {
      this.#waiting--;
      if (error) return;
      this.#delivered += bytes.length;
      this.#onDelivered(bytes.length);
      if (this.#waiting === 0) this.#drained();
    });
    if (hasRoom && this.#waiting < MAX_WAITING) return;
    this.#isFull = true;
    this.#source.pause();
  }

  #drained(): void {
    if (!this.#isFull) return;
    this.#isFull = false;
    this.#proceed();
  }

  /** Reads no more for so long. */
  pause(ms: number): void {
    this.#source.pause();
    clearTimeout(this.#pace);
    this.#pace = setTimeout(() => {
      this.#pace = undefined;
      this.#proceed();
    }, ms);
  }

  #proceed(): void {
    if (!this.#isClosed && !this.#isFull && this.#pace === undefined) this.#source.resume();
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#pace);
  }
}

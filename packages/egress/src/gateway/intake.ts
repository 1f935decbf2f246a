/**
 * Bounds what the daemon keeps of a guest's stream that is not read at the moment. Node queues slices of what it read from the channel, so one
 * byte of data among frames of no use would keep 64 KiB, once for each byte of the window. Here what waits is copied together.
 */
import type { ServerHttp2Stream } from 'node:http2';

const BLOCK_BYTES = 16 * 1024;
/** What is not small is queued by itself. */
const SMALL_BYTES = 4 * 1024;

/** @returns the same bytes, keeping no more memory than twice as many */
export function compact(chunk: Buffer): Buffer {
  if (chunk.buffer.byteLength <= chunk.length * 2) return chunk;
  const copy = Buffer.allocUnsafeSlow(chunk.length);
  chunk.copy(copy);
  return copy;
}

export class Intake {
  readonly #stream: ServerHttp2Stream;
  readonly #push: (chunk: Buffer | null) => boolean;
  /** Follows what the stream has queued; empty when that is. */
  #block: Buffer | undefined;
  #used = 0;

  /** Stands between HTTP/2 and the queue of the stream from now on. Its one reader calls `taken` after each chunk. */
  constructor(stream: ServerHttp2Stream) {
    this.#stream = stream;
    this.#push = stream.push.bind(stream);
    stream.push = (chunk: Buffer | null) => this.#arrived(chunk);
  }

  taken(): void {
    if (this.#stream.readableLength === 0) this.#flush();
  }

  #arrived(chunk: Buffer | null): boolean {
    if (chunk !== null && chunk.length < SMALL_BYTES && this.#stream.readableLength > 0) return this.#gather(chunk);
    this.#flush();
    return this.#push(chunk === null ? null : compact(chunk));
  }

  #gather(chunk: Buffer): boolean {
    const hasRoom = this.#used + chunk.length <= BLOCK_BYTES || this.#flush();
    this.#block ??= Buffer.allocUnsafeSlow(BLOCK_BYTES);
    this.#used += chunk.copy(this.#block, this.#used);
    return hasRoom;
  }

  /** @returns whether the stream wants more */
  #flush(): boolean {
    const waiting = this.#block?.subarray(0, this.#used);
    this.#block = undefined;
    this.#used = 0;
    return waiting === undefined || this.#push(compact(waiting));
  }
}

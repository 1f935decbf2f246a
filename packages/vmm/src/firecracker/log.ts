/** What a Firecracker says. The end of it is kept for whoever asks why a microVM ended; Firecracker counts what it could not say. */
import { FifoReader } from './fifo.ts';

const KEPT_BYTES = 8 * 1024;

export class FifoLog {
  readonly #reader: FifoReader | undefined;
  #kept: Buffer = Buffer.alloc(0);

  /** Where there is no FIFO, nothing is said. */
  constructor(path: string) {
    this.#reader = FifoReader.open(path, (piece) => {
      this.#kept = Buffer.from(Buffer.concat([this.#kept, piece]).subarray(-KEPT_BYTES));
    });
  }

  /** The last of what was said, until now. */
  tail(): string {
    this.#reader?.drain();
    return this.#kept.toString('utf8');
  }

  close(): void {
    this.#reader?.close();
  }
}

/** How far a copy is: one line of the terminal, drawn over again; nothing where there is no terminal. */
import stringWidth from 'string-width';
import { printable, size } from '../output.ts';

const REDRAW_MS = 100;
const BAR_WIDTH = 20;

export class Progress {
  readonly #label: string;
  readonly #totalBytes: number | undefined;
  readonly #stream: NodeJS.WriteStream;
  readonly #startedAt = performance.now();
  #bytes = 0;
  #drawnAt = Number.NEGATIVE_INFINITY;

  /** @param totalBytes undefined when nobody knows beforehand */
  constructor(label: string, totalBytes: number | undefined, stream = process.stderr) {
    this.#label = printable(label);
    this.#totalBytes = totalBytes;
    this.#stream = stream;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** From the beginning again. */
  restart(): void {
    this.#bytes = 0;
  }

  /** Passes the pieces on, and counts them. */
  async *count(pieces: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
    for await (const piece of pieces) {
      this.#bytes += piece.length;
      const now = performance.now();
      if (now - this.#drawnAt >= REDRAW_MS) {
        this.#drawnAt = now;
        this.#draw();
      }
      yield piece;
    }
  }

  /** Leaves the last line, so that what is printed next begins on its own. */
  end(): void {
    this.#draw();
    if (this.#stream.isTTY) this.#stream.write('\n');
  }

  #draw(): void {
    if (!this.#stream.isTTY) return;
    const width = this.#stream.columns || 80;
    const seconds = Math.max((performance.now() - this.#startedAt) / 1000, 0.001);
    const rate = `${size(Math.round(this.#bytes / seconds))}/s`;
    let state = `${size(this.#bytes)}  ${rate}`;
    if (this.#totalBytes !== undefined) {
      const done = this.#totalBytes === 0 ? 1 : Math.min(1, this.#bytes / this.#totalBytes);
      const percent = `${String(Math.floor(done * 100)).padStart(3)} %`;
      const bar = '#'.repeat(Math.round(done * BAR_WIDTH)).padEnd(BAR_WIDTH, '.');
      const withBar = `[${bar}] ${percent}  ${state}`;
      state = stringWidth(this.#label) + withBar.length + 2 < width ? withBar : `${percent}  ${state}`;
    }
    const room = width - state.length - 3;
    const label = stringWidth(this.#label) <= room ? this.#label : `…${this.#label.slice(-Math.max(0, room - 1))}`;
    this.#stream.write(`\r${label}  ${state}\x1b[K`);
  }
}

/**
 * What a Firecracker says, through a FIFO in its jail. The kernel holds 64 KiB of it and takes no more until somebody reads, so a guest that has
 * its Firecracker say much fills no disk, whether a daemon runs or not; Firecracker counts what it could not say. The end of it is kept for whoever
 * asks why a microVM ended.
 */
import { execFile } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { promisify } from 'node:util';

const KEPT_BYTES = 8 * 1024;
/** `PIPE_BUF` times 16: what a FIFO holds (pipe(7)). */
const FIFO_BYTES = 64 * 1024;
/** Between two readings, each of at most what the FIFO holds: a guest that never stops costs the daemon no more. */
const REST_MS = 200;

export async function makeFifo(path: string): Promise<void> {
  await promisify(execFile)('mkfifo', ['--mode=600', '--', path]);
}

export class FifoLog {
  readonly #fd: number;
  readonly #socket: Socket;
  #kept: Buffer = Buffer.alloc(0);
  #rest: NodeJS.Timeout | undefined;

  private constructor(fd: number) {
    this.#fd = fd;
    this.#socket = new Socket({ fd, readable: true, writable: false });
    this.#socket.on('error', () => {});
    this.#socket.on('data', (piece) => this.#take(piece));
    // A daemon that has nothing else to do may end.
    this.#socket.unref();
  }

  /** @returns undefined when it is no FIFO */
  static open(path: string): FifoLog | undefined {
    let fd: number;
    try {
      // For writing as well: then it has an end only when this closes it, and opening does not wait for a writer.
      fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    } catch {
      // Missing, or a link: nothing that we made.
      return undefined;
    }
    if (fstatSync(fd).isFIFO()) return new FifoLog(fd);
    closeSync(fd);
    return undefined;
  }

  /** The last of what was said, until now. */
  tail(): string {
    const buffer = Buffer.alloc(FIFO_BYTES);
    if (!this.#socket.destroyed) {
      try {
        this.#keep(buffer.subarray(0, readSync(this.#fd, buffer)));
      } catch (error) {
        // Nothing is there.
        if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
      }
    }
    return this.#kept.toString('utf8');
  }

  close(): void {
    clearTimeout(this.#rest);
    this.#socket.destroy();
  }

  #take(piece: Buffer): void {
    this.#keep(piece);
    this.#socket.pause();
    this.#rest = setTimeout(() => this.#socket.resume(), REST_MS).unref();
  }

  #keep(piece: Buffer): void {
    this.#kept = Buffer.from(Buffer.concat([this.#kept, piece]).subarray(-KEPT_BYTES));
  }
}

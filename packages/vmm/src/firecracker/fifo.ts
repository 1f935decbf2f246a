/**
 * What a Firecracker writes through a FIFO in its jail. The kernel holds 64 KiB of it and takes no more until somebody reads, so a guest that has
 * its Firecracker write much fills no disk, whether a daemon runs or not. What there was no room for is lost; what follows may begin in the middle.
 */
import { execFile } from 'node:child_process';
import { closeSync, constants, fstatSync, openSync, readSync } from 'node:fs';
import { Socket } from 'node:net';
import { promisify } from 'node:util';

/** `PIPE_BUF` times 16: what a FIFO holds (pipe(7)). */
const FIFO_BYTES = 64 * 1024;
/** Between two readings, each of at most what the FIFO holds: a guest that never stops costs the daemon no more. */
const REST_MS = 200;

/** All in one process, which every restore waits for. */
export async function makeFifos(...paths: string[]): Promise<void> {
  await promisify(execFile)('mkfifo', ['--mode=600', '--', ...paths]);
}

/** Reads one until it is closed, at leisure. */
export class FifoReader {
  readonly #fd: number;
  readonly #socket: Socket;
  readonly #take: (piece: Buffer) => void;
  #rest: NodeJS.Timeout | undefined;

  private constructor(fd: number, take: (piece: Buffer) => void) {
    this.#fd = fd;
    this.#take = take;
    this.#socket = new Socket({ fd, readable: true, writable: false });
    this.#socket.on('error', () => {});
    this.#socket.on('data', (piece) => {
      take(piece);
      this.#socket.pause();
      clearTimeout(this.#rest);
      this.#rest = setTimeout(() => this.#socket.resume(), REST_MS).unref();
    });
    // A daemon that has nothing else to do may end.
    this.#socket.unref();
  }

  /**
   * @param take every piece, in order; it must not throw
   * @returns undefined when there is no FIFO
   */
  static open(path: string, take: (piece: Buffer) => void): FifoReader | undefined {
    let fd: number;
    try {
      // For writing as well: then it has an end only when this closes it, and opening does not wait for a writer.
      fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK | constants.O_NOFOLLOW);
    } catch {
      // Missing, or a link: nothing that we made.
      return undefined;
    }
    if (fstatSync(fd).isFIFO()) return new FifoReader(fd, take);
    closeSync(fd);
    return undefined;
  }

  /** Takes what is there now, without waiting. */
  drain(): void {
    if (this.#socket.destroyed) return;
    clearTimeout(this.#rest);
    // First what was read already; this has it taken as well.
    while (this.#socket.read() !== null);
    const buffer = Buffer.alloc(FIFO_BYTES);
    try {
      this.#take(buffer.subarray(0, readSync(this.#fd, buffer)));
    } catch (error) {
      // Nothing is there.
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error;
    }
  }

  close(): void {
    clearTimeout(this.#rest);
    this.#socket.destroy();
  }
}

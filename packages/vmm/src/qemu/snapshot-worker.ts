/**
 * Stores one migration stream, in a thread of its own: compares half a gigabyte and more without holding up the daemon. Listens where
 * the VMM connects, and ends with what it wrote or with the reason why not.
 */
import { createHash } from 'node:crypto';
import { chmodSync, closeSync, fsyncSync, openSync, readSync, writeSync } from 'node:fs';
import { createServer } from 'node:net';
import { parentPort, workerData } from 'node:worker_threads';
import { PAGE_BYTES, RamFilter } from './ram-stream.ts';

export type StoreRequest = {
  readonly socketPath: string;
  readonly statePath: string;
  readonly templateMemoryPath: string;
  readonly memoryBytes: number;
};
export type StoreMessage =
  | { readonly kind: 'listening' }
  | { readonly kind: 'stored'; readonly bytes: number; readonly sha256Hex: string; readonly keptPages: number }
  | { readonly kind: 'failed'; readonly message: string; readonly code: string | undefined };

/** The template's memory is read in pieces of this size; pages come in the order of their addresses. */
const WINDOW_BYTES = 1024 * 1024;

const { socketPath, statePath, templateMemoryPath, memoryBytes } = workerData as StoreRequest;
const tell = (message: StoreMessage): void => parentPort?.postMessage(message);

const template = openSync(templateMemoryPath, 'r');
const state = openSync(statePath, 'wx', 0o600);
const window = Buffer.alloc(WINDOW_BYTES);
let windowStart = -1;

function templatePage(offset: number): Buffer {
  const start = offset - (offset % WINDOW_BYTES);
  if (start !== windowStart) {
    window.fill(0, readSync(template, window, 0, WINDOW_BYTES, start));
    windowStart = start;
  }
  return window.subarray(offset - start, offset - start + PAGE_BYTES);
}

const filter = new RamFilter(memoryBytes, templatePage);
const hash = createHash('sha256');
let bytes = 0;

function store(pieces: readonly Buffer[]): void {
  for (const piece of pieces) {
    hash.update(piece);
    for (let written = 0; written < piece.length; ) written += writeSync(state, piece, written);
    bytes += piece.length;
  }
}

function finish(message: StoreMessage): void {
  server.close();
  closeSync(template);
  closeSync(state);
  tell(message);
}

const server = createServer((socket) => {
  server.close();
  const fail = (error: NodeJS.ErrnoException): void => {
    socket.destroy();
    finish({ kind: 'failed', message: error.message, code: error.code });
  };
  socket.on('error', fail);
  socket.on('data', (chunk) => {
    try {
      store(filter.push(chunk));
    } catch (error) {
      socket.off('error', fail);
      fail(error as Error);
    }
  });
  socket.on('end', () => {
    try {
      filter.end();
      fsyncSync(state);
      finish({ kind: 'stored', bytes, sha256Hex: hash.digest('hex'), keptPages: filter.keptPages });
    } catch (error) {
      fail(error as Error);
    }
  });
});
server.listen(socketPath, () => {
  // The directory keeps out everybody but the VMM, which may have a user of its own; it cannot put another file in this one's place.
  chmodSync(socketPath, 0o666);
  tell({ kind: 'listening' });
});

/**
 * The pages of a guest's memory that a snapshot has of its own, in one plain file: what GNU tar makes of a sparse file (format posix, sparse 1.0: a
 * map of the pieces that are not holes, then their bytes). A page that is written, and zero, is a piece like any other; only a hole is
 * somebody else's. Tar is what reads the holes, for Node cannot (`SEEK_HOLE`), and whoever copies a snapshot later cannot lose them.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

const BLOCK_BYTES = 512;
const PAGE_BYTES = 4096;
const PIECE_BYTES = 1024 * 1024;
/** Where fields of a header are (POSIX, ustar). */
const HEADER = { size: 124, sizeEnd: 136, type: 156, magic: 257 };
/** Of a pax header: a handful of short records. */
const MAX_PAX_BYTES = 64 * 1024;
const MAX_STDERR = 4096;

export type Extent = { readonly offset: number; readonly bytes: number };

/** No file that `storeDelta` made, or not of this memory. */
export class BadDelta extends Error {
  override readonly name = 'BadDelta';
}

/**
 * @param sparse the holes are not stored. `isExact` false: what is a hole means nothing on this filesystem, and all is stored
 * @returns the digest of the file
 */
export async function storeDelta(sparse: string, to: string, memoryBytes: number, isExact: boolean): Promise<string> {
  const options = isExact ? ['--sparse', '--sparse-version=1.0', '--hole-detection=seek'] : [];
  const file = ['--directory', dirname(sparse), '--', basename(sparse)];
  const target = await open(to, 'wx+', 0o600);
  const hash = createHash('sha256');
  let room = memoryBytes + mapBytes(memoryBytes);
  // Read from the moment it starts: what an ended process said that nobody listened to is thrown away.
  const tar = spawn('tar', ['--create', '--format=posix', ...options, '--file=-', ...file], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const ended = once(tar, 'close');
  ended.catch(() => {});
  let complaint = '';
  tar.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaint = (complaint + text).slice(0, MAX_STDERR);
  });
  try {
    for await (const piece of tar.stdout as AsyncIterable<Buffer>) {
      room -= piece.length;
      // Who wrote it may write to it still.
      if (room < 0) throw new BadDelta('the memory is larger than the machine’s');
      hash.update(piece);
      await writeAll(target, piece);
    }
    const [code] = (await ended) as [number | null];
    if (code !== 0) throw new Error(`tar could not read the memory: ${complaint.trim()}`);
    await assertWhole(target, memoryBytes);
  } finally {
    tar.kill('SIGKILL');
    await target.close();
  }
  return hash.digest('hex');
}

/** A disk that is nearly full takes a part, and refuses only the rest. @param position in the file; where the last one ended when left out */
async function writeAll(target: FileHandle, piece: Buffer, position?: number): Promise<void> {
  for (let written = 0; written < piece.length; ) {
    const at = position === undefined ? null : position + written;
    written += (await target.write(piece, written, piece.length - written, at)).bytesWritten;
  }
}

/** @throws BadDelta */
async function assertWhole(file: FileHandle, memoryBytes: number): Promise<void> {
  const { extents, dataAt } = await readMap(file, memoryBytes);
  const bytes = extents.reduce((total, extent) => total + extent.bytes, dataAt);
  if ((await file.stat()).size < bytes) throw new BadDelta('the memory is cut off');
}

/** What there is at most beside the pages: two numbers for every other page, and headers. */
const mapBytes = (memoryBytes: number): number => (memoryBytes / PAGE_BYTES) * 16 + MAX_PAX_BYTES;

/**
 * Makes the sparse file of the pages that differ, from all of a memory.
 * @param to is made
 */
export async function subtractMemory(full: string, template: string, to: string, memoryBytes: number): Promise<void> {
  const files = [await open(full, 'r'), await open(template, 'r'), await open(to, 'wx', 0o600)] as const;
  const [ours, theirs] = [Buffer.alloc(PIECE_BYTES), Buffer.alloc(PIECE_BYTES)];
  try {
    await files[2].truncate(memoryBytes);
    for (let start = 0; start < memoryBytes; start += PIECE_BYTES) {
      const { bytesRead } = await files[0].read(ours, 0, PIECE_BYTES, start);
      theirs.fill(0, (await files[1].read(theirs, 0, PIECE_BYTES, start)).bytesRead);
      const differs = (page: number): boolean =>
        page < bytesRead && ours.compare(theirs, page, page + PAGE_BYTES, page, page + PAGE_BYTES) !== 0;
      for (let page = 0; page < bytesRead; page += PAGE_BYTES) {
        const first = page;
        while (differs(page)) page += PAGE_BYTES;
        if (page > first) await writeAll(files[2], ours.subarray(first, page), start + first);
      }
    }
  } finally {
    for (const file of files) await file.close();
  }
}

/**
 * Writes the pages over those of a file of the same memory.
 * @param to is there, and of this size
 * @throws BadDelta
 */
export async function applyDelta(delta: string, to: string, memoryBytes: number): Promise<void> {
  const [source, target] = [await open(delta, 'r'), await open(to, 'r+')];
  try {
    const { extents, dataAt } = await readMap(source, memoryBytes);
    const window = Buffer.alloc(PIECE_BYTES);
    let [start, length, at] = [0, 0, dataAt];
    for (const { offset, bytes } of extents) {
      for (let done = 0; done < bytes; ) {
        if (at >= start + length) {
          [start, length] = [at, (await source.read(window, 0, PIECE_BYTES, at)).bytesRead];
          if (length === 0) throw new BadDelta('the memory is cut off');
        }
        const piece = window.subarray(at - start, Math.min(length, at - start + bytes - done));
        const { bytesWritten } = await target.write(piece, 0, piece.length, offset + done);
        at += bytesWritten;
        done += bytesWritten;
      }
    }
  } finally {
    await source.close();
    await target.close();
  }
}

/** @throws BadDelta */
export async function readMap(source: FileHandle, memoryBytes: number): Promise<{ extents: Extent[]; dataAt: number }> {
  let at = 0;
  const header = async (): Promise<{ type: string; size: number }> => {
    const block = await readAt(source, at, BLOCK_BYTES);
    at += BLOCK_BYTES;
    if (block.toString('latin1', HEADER.magic, HEADER.magic + 5) !== 'ustar') throw new BadDelta('no tar header');
    const size = Number.parseInt(block.toString('latin1', HEADER.size, HEADER.sizeEnd), 8);
    return { type: block.toString('latin1', HEADER.type, HEADER.type + 1), size };
  };
  const pax = await header();
  if (pax.type !== 'x' || !(pax.size >= 0 && pax.size <= MAX_PAX_BYTES)) throw new BadDelta('no pax header');
  const records = (await readAt(source, at, pax.size)).toString('latin1');
  at += roundUp(pax.size);
  const { type } = await header();
  if (type !== '0') throw new BadDelta('no plain file');
  const realSize = /^\d+ GNU\.sparse\.realsize=(\d+)$/m.exec(records)?.[1];
  // Without a hole it is a file like any other.
  if (realSize === undefined) return { extents: [{ offset: 0, bytes: memoryBytes }], dataAt: at };
  if (Number(realSize) !== memoryBytes) throw new BadDelta('the memory is of another size');
  return parseMap(source, at, memoryBytes);
}

/** Decimal numbers, each on a line: how many extents, then offset and length of each. */
async function parseMap(
  source: FileHandle,
  start: number,
  memoryBytes: number,
): Promise<{ extents: Extent[]; dataAt: number }> {
  let at = start;
  let [digits, count, offset, end] = ['', -1, -1, 0];
  const extents: Extent[] = [];
  const take = (value: number): void => {
    if (count < 0) {
      // One for each page, and the end.
      if (value > memoryBytes / PAGE_BYTES + 1) throw new BadDelta('the map of the memory is none');
      count = value;
    } else if (offset < 0) offset = value;
    else {
      const isInside = offset >= end && offset % PAGE_BYTES === 0 && offset + value <= memoryBytes;
      if (!isInside) throw new BadDelta('the map of the memory is none');
      extents.push({ offset, bytes: value });
      [end, offset] = [offset + value, -1];
    }
  };
  while (count < 0 || extents.length < count) {
    // Never more blocks than the map has: data follow.
    const block = await readAt(source, at, BLOCK_BYTES);
    at += BLOCK_BYTES;
    for (const character of block.toString('latin1')) {
      if (character >= '0' && character <= '9' && digits.length < 16) digits += character;
      else if (character === '\n' && digits !== '') {
        take(Number(digits));
        digits = '';
        if (count >= 0 && extents.length === count) break;
      } else throw new BadDelta('the map of the memory is none');
    }
  }
  return { extents: extents.filter(({ bytes }) => bytes > 0), dataAt: at };
}

/**
 * Whether a filesystem gives back exactly the holes of a sparse file: a page at a time, and written zeros as written. What a snapshot of the
 * difference means rests on it.
 */
export async function keepsHoles(directory: string): Promise<boolean> {
  const [sparse, stored] = [join(directory, '.holes-sparse'), join(directory, '.holes-stored')];
  // What a daemon that was killed here left.
  for (const path of [sparse, stored]) await rm(path, { force: true });
  const pages = [1, 3, 6];
  const memoryBytes = 8 * PAGE_BYTES;
  try {
    const file = await open(sparse, 'wx', 0o600);
    try {
      await file.truncate(memoryBytes);
      // One of zeros, and two that are not.
      for (const page of pages) await file.write(Buffer.alloc(PAGE_BYTES, page - 1), 0, PAGE_BYTES, page * PAGE_BYTES);
      await file.sync();
    } finally {
      await file.close();
    }
    await storeDelta(sparse, stored, memoryBytes, true);
    const read = await open(stored, 'r');
    const { extents } = await readMap(read, memoryBytes).finally(() => read.close());
    return (
      JSON.stringify(extents.map(({ offset, bytes }) => [offset / PAGE_BYTES, bytes])) ===
      JSON.stringify(pages.map((page) => [page, PAGE_BYTES]))
    );
  } finally {
    for (const path of [sparse, stored]) await rm(path, { force: true });
  }
}

const roundUp = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;

async function readAt(source: FileHandle, at: number, bytes: number): Promise<Buffer> {
  const buffer = Buffer.alloc(bytes);
  const { bytesRead } = await source.read(buffer, 0, bytes, at);
  if (bytesRead < bytes) throw new BadDelta('the memory is cut off');
  return buffer;
}

/** What templates, snapshots and clones of every backend do with their files: copy and flush them, and tell whether they are what they were. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { constants, lstat, open, stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';

/**
 * Copies an overlay, which is mostly holes: the blocks that are there, or shares them where the file system can (FICLONE). A link is copied as
 * one and not followed.
 */
export async function copySparse(from: string, to: string): Promise<void> {
  await promisify(execFile)('cp', ['--sparse=always', '--reflink=auto', '--no-dereference', '--', from, to]);
}

/** For what was copied or renamed out of a directory that a VMM may write to. @throws Error when it is something else, or larger */
export async function assertPlainFile(path: string, maxBytes = Infinity): Promise<void> {
  const found = await lstat(path);
  if (!found.isFile() || found.nlink !== 1 || found.size > maxBytes)
    throw new Error(`a VMM left something else than a file: ${path}`);
}

/** A file's contents, or a directory's entries, are on the disk afterwards. */
export async function flush(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  await handle.sync().finally(() => handle.close());
}

export async function sha256Hex(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash);
  return hash.digest('hex');
}

/** Whether the disk is full, or a quota; Firecracker and the programs that copy tell it in words. */
export function isNoRoom(error: unknown): boolean {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === 'ENOSPC' || code === 'EDQUOT' || /no space left|os error 28|disk quota/i.test(message);
}

/** @returns undefined when it is not there */
export const sizeOf = (path: string): Promise<number | undefined> =>
  stat(path).then(
    (found) => found.size,
    () => undefined,
  );

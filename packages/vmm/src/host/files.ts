/** What templates, snapshots and clones of every backend do with their files: copy and flush them, and tell whether they are what they were. */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { constants, lstat, open, rename, stat } from 'node:fs/promises';
import { pipeline } from 'node:stream/promises';

/** Of what a program says when it fails. */
const MAX_COMPLAINT = 4096;

/** What rename(2) answers for a directory when there is something else than an empty one. */
const TAKEN: readonly (string | undefined)[] = ['ENOTEMPTY', 'EEXIST', 'ENOTDIR'];

/** What a VMM may have put in place of its files: opening one waits for nobody and follows no link. */
const AS_IT_IS = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;

/**
 * Copies an overlay, which is mostly holes: the blocks that are there, or shares them where the file system can (FICLONE).
 * @throws Error when it is not a plain file; a VMM may have had its directory to itself
 */
export async function copySparse(from: string, to: string): Promise<void> {
  const handle = await open(from, AS_IT_IS).catch((cause: NodeJS.ErrnoException) => {
    throw cause.code === 'ELOOP' || cause.code === 'ENXIO' ? notPlain(from, cause) : cause;
  });
  try {
    if (!(await handle.stat()).isFile()) throw notPlain(from);
    // By the descriptor: under the name there may be something else by now.
    await run('cp', ['--sparse=always', '--reflink=auto', '--dereference', '--', '/proc/self/fd/3', to], handle.fd);
  } finally {
    await handle.close();
  }
}

/** @param descriptor that it has as 3. @throws Error with what it complained of, in the words that {@link isNoRoom} knows */
function run(program: string, args: readonly string[], descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { env: { LC_ALL: 'C' }, stdio: ['ignore', 'ignore', 'pipe', descriptor] });
    let complaint = '';
    child.stderr?.setEncoding('utf8').on('data', (text: string) => {
      complaint = (complaint + text).slice(0, MAX_COMPLAINT);
    });
    child.once('error', reject);
    child.once('close', (code) =>
      code === 0 ? resolve() : reject(new Error(`${program} failed: ${complaint.trim()}`)),
    );
  });
}

const notPlain = (path: string, cause?: unknown): Error =>
  new Error(`a VMM left something else than a file: ${path}`, { cause });

/** For what was renamed out of a directory that a VMM may write to. @throws Error when it is something else, or larger */
export async function assertPlainFile(path: string, maxBytes = Infinity): Promise<void> {
  const found = await lstat(path);
  if (!found.isFile() || found.nlink !== 1 || found.size > maxBytes) throw notPlain(path);
}

/** The end of what a VMM may write to without an end, and make as long as it likes. Never rejects. @returns nothing for what is no plain file, or cannot be read */
export async function tailOf(path: string, bytes: number): Promise<string> {
  const handle = await open(path, AS_IT_IS).catch(() => undefined);
  if (handle === undefined) return '';
  try {
    const found = await handle.stat();
    const length = found.isFile() ? Math.min(found.size, bytes) : 0;
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(length), 0, length, found.size - length);
    return buffer.toString('utf8', 0, bytesRead);
  } catch {
    return '';
  } finally {
    await handle.close();
  }
}

/** Of a file that a VMM writes. @throws Error for what is no plain file, or has more bytes than these */
export async function contentOf(path: string, maxBytes: number): Promise<Buffer> {
  const handle = await open(path, AS_IT_IS);
  try {
    const found = await handle.stat();
    if (!found.isFile() || found.size > maxBytes) throw notPlain(path);
    const { buffer, bytesRead } = await handle.read(Buffer.alloc(found.size), 0, found.size, 0);
    return buffer.subarray(0, bytesRead);
  } finally {
    await handle.close();
  }
}

/** A file's contents, or a directory's entries, are on the disk afterwards. */
export async function flush(path: string): Promise<void> {
  const handle = await open(path, constants.O_RDONLY);
  await handle.sync().finally(() => handle.close());
}

/** Gives a directory its name in one step: of two that are ready at once one finds it taken. @returns false when it is */
export async function renameUnlessTaken(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if (TAKEN.includes((error as NodeJS.ErrnoException).code)) return false;
    throw error;
  }
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

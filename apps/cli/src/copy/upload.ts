/** From this machine into a sandbox: files one by one, directories as one tar stream. */
import { createReadStream, type Stats } from 'node:fs';
import { lstat, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { InstaVMError, type Sandbox } from 'instavm';
import { create } from 'tar';
import { type Place, targetOf } from './place.ts';
import { Progress } from './progress.ts';
import type { Copied, CopyOptions } from './result.ts';

const PIECE_BYTES = 512 * 1024;

/** @param asDirectory there are several sources, so the destination has to be a directory. @throws InstaVMError */
export async function upload(
  source: Exclude<Place, { kind: 'sandbox' }>,
  sandbox: Sandbox,
  destination: string,
  { user, asDirectory }: CopyOptions,
): Promise<Copied> {
  const access = { user };
  const intoDirectory = asDirectory || destination.endsWith('/') || (await isDirectory(sandbox, destination, user));
  if (source.kind === 'stream') {
    if (intoDirectory)
      throw new InstaVMError('invalid_argument', `${destination} is a directory: name the file that is to be written`);
    const progress = new Progress(destination, undefined);
    await sandbox.files.write(destination, progress.count(process.stdin), { ...access, parents: true });
    progress.end();
    return { from: '-', to: destination, entries: 1, sizeBytes: progress.bytes, leftOut: [] };
  }
  const { path } = source;
  const info = await present(path);
  const target = targetOf(path, destination, intoDirectory);
  if (!info.isDirectory()) {
    const progress = new Progress(path, info.isFile() ? info.size : undefined);
    const contents = progress.count(createReadStream(path, { highWaterMark: PIECE_BYTES }));
    await sandbox.files.write(target, contents, { ...access, ...attributesOf(info), parents: true });
    progress.end();
    return { from: path, to: target, entries: 1, sizeBytes: progress.bytes, leftOut: [] };
  }
  const progress = new Progress(path, process.stderr.isTTY ? await sizeOf(path) : undefined);
  // With the directory itself, which gives its permissions and time to one that is made for it. Names of owners mean nothing in another machine:
  // what is unpacked belongs to whom it is unpacked for.
  const archive = create({ cwd: path, strict: true }, ['.']) as unknown as AsyncIterable<Uint8Array>;
  const owner = user === undefined ? 'root' : undefined;
  const { entries, sizeBytes } = await sandbox.files.unpackTar(target, progress.count(archive), { ...access, owner });
  progress.end();
  return { from: path, to: target, entries, sizeBytes, leftOut: [] };
}

/** A time before 1970 is none that a sandbox could keep. */
const attributesOf = ({ mode, mtime }: Stats) => ({
  mode: mode & 0o777,
  modifiedAt: mtime.getTime() >= 0 ? mtime : undefined,
});

async function isDirectory(sandbox: Sandbox, path: string, user: string | undefined): Promise<boolean> {
  try {
    return (await sandbox.files.stat(path, { user })).kind === 'dir';
  } catch (error) {
    if (error instanceof InstaVMError && error.code === 'file_not_found') return false;
    throw error;
  }
}

async function present(path: string): Promise<Stats> {
  try {
    return await stat(path);
  } catch (error) {
    throw localError(path, error);
  }
}

/** What the operating system says, as a failure of this program's. */
export function localError(path: string, cause: unknown): InstaVMError {
  const { code = '' } = cause as NodeJS.ErrnoException;
  const words: Readonly<Record<string, readonly [string, string]>> = {
    ENOENT: ['local_file_not_found', 'there is no such file or directory here'],
    EACCES: ['local_file_error', 'permission denied'],
    ENOSPC: ['local_file_error', 'no space left on this machine'],
  };
  const [name, sentence] = words[code] ?? ['local_file_error', cause instanceof Error ? cause.message : String(cause)];
  return new InstaVMError(name, `${path}: ${sentence}`, { cause });
}

/** What a tar of it takes, roughly: for how far it is. */
async function sizeOf(directory: string): Promise<number> {
  let sum = 0;
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    // It may have gone meanwhile.
    const info = await lstat(join(entry.parentPath, entry.name)).catch(() => undefined);
    sum += info?.size ?? 0;
  }
  return sum;
}

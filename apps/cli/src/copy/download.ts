/** From a sandbox to this machine. What a sandbox sends is not believed: see unpack.ts. */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { chmod, lstat, mkdir, realpath, rename, rm, stat, utimes } from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { type FileInfo, InstaVMError, type Sandbox } from 'instavm';
import { type Place, targetOf } from './place.ts';
import { Progress } from './progress.ts';
import type { Copied, CopyOptions } from './result.ts';
import { isBelow, isFromSystem, SparseMember, tooLarge, unpack } from './unpack.ts';
import { localError } from './upload.ts';

/** Files with holes of one directory, each of which begins its copy again without it. */
const MAX_SPARSE = 100;

/** @throws InstaVMError */
export async function download(
  sandbox: Sandbox,
  source: string,
  destination: Exclude<Place, { kind: 'sandbox' }>,
  { user, asDirectory, limitBytes }: CopyOptions,
): Promise<Copied> {
  const { files } = sandbox;
  const info = await files.stat(source, { user });
  const isDirectory = info.kind === 'dir';
  const progress = new Progress(source, isDirectory ? undefined : info.sizeBytes);
  const read = (path: string): AsyncIterable<Uint8Array> =>
    bounded(progress.count(files.readStream(path, { user })), limitBytes);
  const done = (to: string, entries: number, leftOut: readonly string[] = []): Copied => {
    progress.end();
    return { from: source, to, entries, sizeBytes: progress.bytes, leftOut };
  };
  if (destination.kind === 'stream') {
    const archive = isDirectory ? bounded(progress.count(files.packTar(source, { user })), limitBytes) : read(source);
    for await (const piece of archive) if (!process.stdout.write(piece)) await once(process.stdout, 'drain');
    return done('-', 1);
  }
  const { path } = destination;
  const target = resolve(targetOf(source, path, asDirectory || path.endsWith('/') || (await isLocalDirectory(path))));
  try {
    if (!isDirectory) {
      await writeFile(target, read(source), info);
      return done(target, 1);
    }
    const isNew = (await mkdir(target, { recursive: true })) !== undefined;
    const sparse: string[] = [];
    for (;;) {
      const archive = files.packTar(source, { user, exclude: sparse });
      try {
        const { entries, leftOut } = await unpack(progress.count(archive), await realpath(target), { limitBytes });
        for (const name of sparse) {
          const described = await files.stat(`${source}/${name}`, { user });
          await keepingTime(await ownPath(target, name), (path) =>
            writeFile(path, read(`${source}/${name}`), described),
          );
        }
        // One that was there before stays as it was.
        if (isNew) await setAttributes(target, info);
        return done(target, entries + sparse.length, leftOut);
      } catch (error) {
        if (!(error instanceof SparseMember) || !isBelow(error.path) || sparse.length >= MAX_SPARSE) throw error;
        sparse.push(error.path);
        progress.restart();
      }
    }
  } catch (error) {
    progress.end();
    throw isFromSystem(error) ? localError(error.path ?? target, error) : error;
  }
}

/** Of a file that a sandbox has named, below the directory: through no link, and in place of one. @throws InstaVMError */
async function ownPath(directory: string, name: string): Promise<string> {
  const path = join(await realpath(directory), name);
  const parent = dirname(path);
  if ((await realpath(parent)) !== parent)
    throw new InstaVMError(
      'local_file_error',
      `${parent} is behind a symbolic link, and nothing is written through one`,
    );
  if ((await lstat(path).catch(() => undefined))?.isSymbolicLink()) await rm(path);
  return path;
}

/** Its directory does not count as modified by it. */
async function keepingTime(path: string, write: (path: string) => Promise<void>): Promise<void> {
  const { mtime } = await stat(dirname(path));
  await write(path);
  await utimes(dirname(path), new Date(), mtime);
}

/** As far as the umask of this user allows: what is writable for everyone in a sandbox need not be so here. */
async function setAttributes(path: string, { mode, modifiedAt }: FileInfo): Promise<void> {
  await chmod(path, mode & 0o777 & ~process.umask());
  await utimes(path, new Date(), modifiedAt);
}

/** It appears whole or not at all, with what it was before left alone; except in what is no regular file, such as a device. */
async function writeFile(path: string, contents: AsyncIterable<Uint8Array>, as: FileInfo): Promise<void> {
  const present = await stat(path).catch(() => undefined);
  if (present !== undefined && !present.isFile()) return pipeline(contents, createWriteStream(path));
  // A link is followed, as cp(1) does.
  const target = present === undefined ? path : await realpath(path);
  await mkdir(dirname(target), { recursive: true });
  const partial = `${target}.${crypto.randomUUID()}.partial`;
  const remove = (): Promise<void> => rm(partial, { force: true });
  const onSignal = (): void => void remove().finally(() => process.exit(130));
  process.once('SIGINT', onSignal);
  try {
    await pipeline(Readable.from(contents), createWriteStream(partial, { mode: 0o600 }));
    await setAttributes(partial, as);
    await rename(partial, target);
  } catch (error) {
    await remove();
    throw error;
  } finally {
    process.off('SIGINT', onSignal);
  }
}

async function* bounded(pieces: AsyncIterable<Uint8Array>, limitBytes: number): AsyncGenerator<Uint8Array> {
  let bytes = 0;
  for await (const piece of pieces) {
    bytes += piece.length;
    if (bytes > limitBytes) throw tooLarge(limitBytes);
    yield piece;
  }
}

const isLocalDirectory = (path: string): Promise<boolean> =>
  stat(path).then(
    (info) => info.isDirectory(),
    () => false,
  );

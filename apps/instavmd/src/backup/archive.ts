/**
 * The files of a backup: a description, and archives (tar, which keeps the holes of sparse files) whose digests are in it.
 *
 *     <backup>/backup.json    what it is, written last: without it there is no backup
 *     <backup>/data.tar       the data directory: database, keys, secrets and certificates, saved states
 *     <backup>/cache.tar      the templates that those saved states rest on, with their images, relative to the cache directory
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream } from 'node:fs';
import { lstat, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';

export const DESCRIPTION = 'backup.json';
export const ARCHIVES = ['data.tar', 'cache.tar'] as const;
export type ArchiveName = (typeof ARCHIVES)[number];

const Archive = z.strictObject({ bytes: z.number().int(), sha256Hex: z.string() });
export type Archive = z.infer<typeof Archive>;

const Description = z.strictObject({
  format: z.literal(1),
  /** Of the database: the last migration. */
  schema: z.string(),
  createdAt: z.iso.datetime(),
  savedStates: z.number().int(),
  /** Where the images of the templates were. */
  cacheDirectory: z.string(),
  archives: z.strictObject({ 'data.tar': Archive, 'cache.tar': Archive.optional() }),
});
export type Description = z.infer<typeof Description>;

const MAX_DESCRIPTION_BYTES = 64 * 1024;
const PROGRESS_EVERY_BYTES = 256 * 1024 * 1024;
const MIB = 1024 * 1024;

export type Progress = (sentence: string) => void;

export const damaged = (what: string, cause?: unknown): InstaVMError =>
  new InstaVMError('backup_damaged', `the backup is damaged: ${what}`, { cause });

/** @throws backup_damaged */
export async function readDescription(backup: string): Promise<Description> {
  const path = join(backup, DESCRIPTION);
  try {
    if ((await lstat(path)).size > MAX_DESCRIPTION_BYTES) throw damaged(`${DESCRIPTION} is too large`);
    return Description.parse(JSON.parse(await readFile(path, 'utf8')));
  } catch (cause) {
    throw cause instanceof InstaVMError ? cause : damaged(`${path} is not there, or does not describe a backup`, cause);
  }
}

/** @param names in `directory`. @throws what tar said, when it could not */
export async function pack(path: string, directory: string, names: readonly string[], say: Progress): Promise<Archive> {
  const args = ['--create', '--sparse', '--numeric-owner', '--directory', directory, '--', ...names];
  const tar = spawn('tar', args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = endOf(tar);
  const meter = metered(say);
  await pipeline(tar.stdout, meter.stream, createWriteStream(path, { mode: 0o600, flush: true, flags: 'wx' }));
  await ended;
  return meter.archive();
}

/** Into a directory that is of no use to anyone until this has resolved. @throws backup_damaged when it is not what was packed */
export async function unpack(path: string, expected: Archive, directory: string, say: Progress): Promise<void> {
  const args = ['--extract', '--sparse', '--no-same-owner', '--directory', directory];
  const tar = spawn('tar', args, { stdio: ['pipe', 'ignore', 'pipe'] });
  const ended = endOf(tar);
  // Told by the digest, or by what awaits it below.
  ended.catch(() => {});
  const meter = metered(say);
  try {
    await pipeline(createReadStream(path, { highWaterMark: MIB }), meter.stream, tar.stdin);
    await ended;
  } catch (cause) {
    throw damaged(`${path} cannot be read as what was packed`, cause);
  }
  const { bytes, sha256Hex } = meter.archive();
  if (bytes !== expected.bytes || sha256Hex !== expected.sha256Hex) throw damaged(`${path} is not what was packed`);
  await refuseLinks(directory);
}

/** An archive of ours holds files and directories, and nothing that leads elsewhere. */
async function refuseLinks(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }))
    if (!entry.isFile() && !entry.isDirectory()) throw damaged(`${entry.name} is neither a file nor a directory`);
}

function endOf(tar: ReturnType<typeof spawn>): Promise<void> {
  let said = '';
  tar.stderr?.on('data', (piece) => {
    said = `${said}${piece}`.slice(-2_000);
  });
  return new Promise((resolve, reject) => {
    tar.once('error', reject);
    tar.once('close', (code) => (code === 0 ? resolve() : reject(new Error(`tar ended with ${code}: ${said.trim()}`))));
  });
}

function metered(say: Progress): { stream: Transform; archive: () => Archive } {
  const hash = createHash('sha256');
  let bytes = 0;
  let told = 0;
  const stream = new Transform({
    highWaterMark: MIB,
    transform(piece: Buffer, _encoding, done) {
      hash.update(piece);
      bytes += piece.length;
      if (bytes - told >= PROGRESS_EVERY_BYTES) {
        told = bytes;
        say(`${Math.round(bytes / MIB)} MiB`);
      }
      done(null, piece);
    },
  });
  return { stream, archive: () => ({ bytes, sha256Hex: hash.digest('hex') }) };
}

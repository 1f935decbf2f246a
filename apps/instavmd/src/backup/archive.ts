/**
 * The files of a backup: a description, and archives (tar, which keeps the holes of sparse files) whose digests are in it.
 *
 *     <backup>/backup.json    what it is, written last: without it there is no backup
 *     <backup>/data.tar       the data directory: database, keys, secrets and certificates, saved states
 *     <backup>/cache.tar      the templates that those saved states rest on, with their images, relative to the cache directory
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { lstat, open, readdir, readFile } from 'node:fs/promises';
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
const MAX_SAID_LENGTH = 64 * 1024;

/** GNU tar compares the time of the last status change as well, and that changes when another link to the file goes: a saved state's, when its sandbox resumes. */
const ENDED_WITH_WARNINGS = 1;
const ONLY_TOUCHED = /^tar: .*: file changed as we read it$/;

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

/**
 * @param names in `directory`, where contents stay as they are, while other links to them may go
 * @throws store_unavailable, and what kept the archive from being written
 */
export async function pack(path: string, directory: string, names: readonly string[], say: Progress): Promise<Archive> {
  const args = ['--create', '--sparse', '--numeric-owner', '--directory', directory, '--', ...names];
  const tar = spawn('env', ['LC_ALL=C', 'tar', ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  const ended = endOf(tar);
  const meter = metered(say);
  await pipeline(tar.stdout, meter.stream, createWriteStream(path, { mode: 0o600, flush: true, flags: 'wx' }));
  const { code, said } = await ended;
  const hasWarned = code === ENDED_WITH_WARNINGS && said.split('\n').every((line) => ONLY_TOUCHED.test(line));
  if (code !== 0 && !hasWarned) throw unusable(`packing ${directory}`, code, said);
  return meter.archive();
}

/**
 * Into a directory that is of no use to anyone until this has resolved.
 * @throws backup_damaged when it is not what was packed, before anything is unpacked; store_unavailable
 */
export async function unpack(path: string, expected: Archive, directory: string, say: Progress): Promise<void> {
  const file = await open(path).catch((cause) => {
    throw damaged(`${path} cannot be read`, cause);
  });
  try {
    const meter = metered(say);
    // Read at offsets, so that tar, which is given the same open file, finds it at its start.
    const contents = file.createReadStream({ start: 0, autoClose: false, highWaterMark: MIB });
    await pipeline(contents, meter.stream, async (pieces) => {
      for await (const _ of pieces);
    });
    const { bytes, sha256Hex } = meter.archive();
    if (bytes !== expected.bytes || sha256Hex !== expected.sha256Hex) throw damaged(`${path} is not what was packed`);
    const args = ['--extract', '--sparse', '--no-same-owner', '--directory', directory];
    const { code, said } = await endOf(spawn('tar', args, { stdio: [file.fd, 'ignore', 'pipe'] }));
    if (code !== 0) throw unusable(`unpacking ${path}`, code, said);
  } finally {
    await file.close();
  }
  await refuseLinks(directory);
}

const unusable = (doing: string, code: number | null, said: string): InstaVMError =>
  new InstaVMError('store_unavailable', `${doing} failed: tar ended with ${code}: ${said}`, {
    hint: 'Make room on the disk, or see what tar says.',
  });

/** An archive of ours holds files and directories, and nothing that leads elsewhere. */
async function refuseLinks(directory: string): Promise<void> {
  for (const entry of await readdir(directory, { recursive: true, withFileTypes: true }))
    if (!entry.isFile() && !entry.isDirectory()) throw damaged(`${entry.name} is neither a file nor a directory`);
}

type Ended = { readonly code: number | null; readonly said: string };

/** Never rejects: a tar that could not be started has ended too. */
function endOf(tar: ChildProcess): Promise<Ended> {
  let said = '';
  tar.stderr?.on('data', (piece) => {
    said = `${said}${piece}`.slice(-MAX_SAID_LENGTH);
  });
  return new Promise((resolve) => {
    tar.once('error', ({ message }) => resolve({ code: null, said: message }));
    tar.once('close', (code) => resolve({ code, said: said.trim() }));
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

/**
 * Unpacks a tar stream from a sandbox below a directory of this machine. The stream is the sandbox's to choose: nothing is written outside
 * the directory, not through a link either (node-tar replaces links in the way by directories), no link that leads out of it is made, nothing
 * gets set-user-id bits or an owner, and it ends at a limit of bytes and members.
 */
import { once } from 'node:events';
import { lutimes } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { InstaVMError } from 'instavm';
import { type ReadEntry, Unpack } from 'tar';

const MAX_ENTRIES = 1_000_000;
const TAKEN = new Set(['File', 'OldFile', 'ContiguousFile', 'Directory', 'SymbolicLink']);

/** GNU's form for files with holes, which node-tar does not read. */
export class SparseMember extends Error {
  readonly path: string;

  constructor(path: string) {
    super(`${path} has holes`);
    this.path = path;
  }
}

export type Unpacked = { readonly entries: number; readonly leftOut: readonly string[] };

/** @param directory is there, and an absolute path. @throws InstaVMError, SparseMember */
export async function unpack(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  { limitBytes, maxEntries = MAX_ENTRIES }: { readonly limitBytes: number; readonly maxEntries?: number },
): Promise<Unpacked> {
  let entries = 0;
  const leftOut: string[] = [];
  // What is unpacked into a directory changes its time, so that is set afterwards.
  const directories = new Map<string, Date>();
  const filter = (path: string, entry: ReadEntry): boolean => {
    // The directory itself is the caller's.
    if (/^\.?\/*$/.test(path) && entry.type === 'Directory') return false;
    entries += 1;
    if (entries > maxEntries) throw refused(`more than ${maxEntries} files`, 'Copy a part of the directory.');
    if (!isBelow(path)) throw refused(`a file named ${path}, which is outside the directory`);
    if (!TAKEN.has(entry.type)) throw refused(`${path}, which is neither a file nor a directory nor a symbolic link`);
    if (entry.type === 'SymbolicLink' && !staysBelow(path, entry.linkpath ?? '')) {
      leftOut.push(path);
      return false;
    }
    entry.mode = (entry.mode ?? 0o644) & 0o777;
    if (entry.type === 'Directory' && entry.mtime !== undefined) directories.set(path, entry.mtime);
    return true;
  };
  const unpacking = new Unpack({
    cwd: directory,
    strict: true,
    preserveOwner: false,
    filter: (path, entry) => filter(path, entry as ReadEntry),
  });
  let failure: Error | undefined;
  const fail = (error: Error): void => {
    failure ??= error instanceof SparseMember ? error : readable(error);
  };
  const closed = new Promise<void>((resolve) => unpacking.once('close', resolve).once('error', () => resolve()));
  unpacking.on('error', fail).on('ignoredEntry', ({ path, type }: ReadEntry) => {
    if (type === 'SparseFile') fail(new SparseMember(path));
  });
  let bytes = 0;
  for await (const piece of archive) {
    bytes += piece.length;
    if (bytes > limitBytes) throw tooLarge(limitBytes);
    // An error ends the waiting too, and is what `fail` has kept by then.
    if (!unpacking.write(Buffer.from(piece))) await Promise.race([once(unpacking, 'drain').catch(() => {}), closed]);
    if (failure !== undefined) throw failure;
  }
  unpacking.end();
  await closed;
  if (failure !== undefined) throw failure;
  // A later member of the same name may have taken its place, but leads nowhere outside.
  for (const [path, mtime] of directories) await lutimes(join(directory, path), mtime, mtime);
  return { entries, leftOut };
}

export const tooLarge = (limitBytes: number): InstaVMError =>
  new InstaVMError('archive_limit', `it is larger than ${limitBytes} bytes`, { hint: 'Take more with --limit.' });

/** The disk being full, say; node-tar's own refusals look similar. */
export const isFromSystem = (error: unknown): error is NodeJS.ErrnoException =>
  error instanceof Error && 'syscall' in error && 'errno' in error;

function readable(error: Error): Error {
  const { symlink } = error as { symlink?: string };
  if (symlink !== undefined)
    return new InstaVMError('local_file_error', `${symlink} is a symbolic link, and nothing is written through one`, {
      hint: 'Remove it, or copy into another directory.',
    });
  if (isFromSystem(error)) return error;
  return new InstaVMError('unexpected_answer', `the sandbox sent no whole tar archive: ${error.message}`);
}

const refused = (what: string, hint?: string): InstaVMError =>
  new InstaVMError('unexpected_answer', `the sandbox sent ${what}`, { hint });

/** @param path of a member, with `/` */
export const isBelow = (path: string): boolean =>
  path !== '' && !path.startsWith('/') && !path.includes('\0') && !path.split('/').includes('..');

/**
 * Whether a link leads to something below the directory. Steps up count only at its beginning, where the directories are real ones; after a
 * name they could go up from behind another link.
 */
export function staysBelow(path: string, target: string): boolean {
  if (target === '' || target.startsWith('/') || target.includes('\0')) return false;
  const steps = target.split('/').filter((step) => step !== '' && step !== '.');
  const ups = steps.findIndex((step) => step !== '..');
  if (ups >= 0 && steps.slice(ups).includes('..')) return false;
  const joined = posix.join(posix.dirname(path), target);
  return joined !== '..' && !joined.startsWith('../');
}

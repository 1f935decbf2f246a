/**
 * Directories of work under way, each named after the process that works in it, so that whoever comes next can tell a living one's from what a
 * killed one left.
 *
 *     <parent>/<prefix>-<process token>-<random>
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { fateOf, processToken } from './process-token.ts';

/** Where nobody can tell (another container's, or a name of an earlier version): untouched for longer than any such work takes. */
const LEFT_AFTER_MS = 24 * 3_600_000;

/** A fresh directory for this process, which removes or renames it when done. `parent` is made when it is missing. */
export async function makeOwnedDirectory(parent: string, prefix: string): Promise<string> {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  const directory = join(parent, `${prefix}-${processToken()}-${randomBytes(4).toString('hex')}`);
  await mkdir(directory, { mode: 0o700 });
  return directory;
}

/** Removes what processes that have ended left in `parent` under this prefix. Never what a living one works in. @returns how many */
export async function removeAbandonedDirectories(parent: string, prefix: string): Promise<number> {
  let removed = 0;
  for (const name of await readdir(parent).catch(() => [])) {
    if (!name.startsWith(`${prefix}-`) || !(await isAbandoned(join(parent, name)))) continue;
    // Another process may be removing it as well.
    await rm(join(parent, name), { recursive: true, force: true, maxRetries: 5 });
    removed += 1;
  }
  return removed;
}

async function isAbandoned(directory: string): Promise<boolean> {
  const fate = fateOf(directory.split('-').at(-2) ?? '');
  if (fate !== 'unknown') return fate === 'ended';
  return Date.now() - (await lastTouched(directory)) > LEFT_AFTER_MS;
}

/** Of the directory, or of what is directly in it. */
async function lastTouched(directory: string): Promise<number> {
  const paths = [directory, ...(await readdir(directory).catch(() => [])).map((name) => join(directory, name))];
  const times = await Promise.all(
    paths.map((path) =>
      stat(path).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      ),
    ),
  );
  return Math.max(...times);
}

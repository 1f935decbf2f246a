/** Snapshots under way: made under another name beside the finished ones, and renamed when they are whole. */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { snapshotFailure } from './failure.ts';

const PARTIAL = '.partial-';

/** A fresh directory below `parent`, which is made when it is missing. @throws snapshot_failed, capacity_unavailable */
export async function makePartialSnapshot(parent: string): Promise<string> {
  const partial = join(parent, `${PARTIAL}${randomBytes(8).toString('hex')}`);
  try {
    await mkdir(parent, { recursive: true, mode: 0o700 });
    await mkdir(partial, { mode: 0o700 });
  } catch (error) {
    throw snapshotFailure(error);
  }
  return partial;
}

/** Removes what an interrupted snapshot left beside `parent`'s entries. @returns how many */
export async function removePartialSnapshots(parent: string): Promise<number> {
  const names = (await readdir(parent).catch(() => [])).filter((name) => name.startsWith(PARTIAL));
  for (const name of names) await rm(join(parent, name), { recursive: true, force: true });
  return names.length;
}

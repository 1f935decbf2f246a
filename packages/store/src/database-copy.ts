/** The database as a file that is copied away and brought back: whole, and as it was at one moment, whoever writes meanwhile. */
import { DatabaseSync } from 'node:sqlite';
import type { FilesId } from '@instavm/core';
import { openDatabase, refuseNewer, schemaOf } from './database.ts';
import { MIGRATIONS } from './migrations.ts';

/** A backup waits rather than fails while the daemon writes. */
const BUSY_TIMEOUT_MS = 30_000;

export type CopiedDatabase = {
  readonly schema: string;
  /** Directories of saved states that its records need: of snapshots that are ready, and of suspended sandboxes. */
  readonly files: readonly FilesId[];
};

/**
 * Copies a database that a daemon may be writing to, in one transaction.
 * @param to must not exist
 * @throws data_incompatible for one of another version: its records are not understood here
 */
export async function copyDatabase(from: string, to: string): Promise<CopiedDatabase> {
  const source = new DatabaseSync(from);
  try {
    source.exec(`PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}`);
    refuseNewer(source, Object.keys(MIGRATIONS), from);
    source.prepare('VACUUM INTO ?').run(to);
  } finally {
    source.close();
  }
  // One of an older version is brought along here; the original is as it was.
  const copy = await openDatabase(to);
  try {
    const ready = copy.selectFrom('snapshots').select('files_id').where('status', '=', 'ready');
    const suspended = copy.selectFrom('sandboxes').where('saved_in', 'is not', null);
    const needed = ready.union(suspended.select(({ ref }) => ref('saved_in').$notNull().as('files_id')));
    const files = (await needed.execute()).map((row) => row.files_id as FilesId);
    return { schema: await schemaOf(copy), files };
  } finally {
    await copy.destroy();
  }
}

/**
 * Takes snapshots whose saved states are not there out of a copy.
 * @param gone directories of saved states
 * @returns those of them that suspended sandboxes need, whose records stay
 */
export async function forgetSnapshots(path: string, gone: readonly FilesId[]): Promise<FilesId[]> {
  const copy = await openDatabase(path);
  try {
    const needed: FilesId[] = [];
    for (const id of gone) {
      await copy.deleteFrom('snapshots').where('files_id', '=', id).execute();
      const sandbox = copy.selectFrom('sandboxes').select('id').where('saved_in', '=', id);
      if ((await sandbox.executeTakeFirst()) !== undefined) needed.push(id);
    }
    return needed;
  } finally {
    await copy.destroy();
  }
}

/** @returns what is wrong with it, in SQLite's words. @throws data_incompatible */
export async function checkDatabase(path: string): Promise<string | undefined> {
  let file: DatabaseSync | undefined;
  try {
    file = new DatabaseSync(path, { readOnly: true });
    refuseNewer(file, Object.keys(MIGRATIONS), path);
    const [first] = file.prepare('PRAGMA integrity_check(1)').all();
    return first?.integrity_check === 'ok' ? undefined : String(first?.integrity_check);
  } catch (error) {
    if ((error as { errcode?: number }).errcode === undefined) throw error;
    return (error as Error).message;
  } finally {
    file?.close();
  }
}

/**
 * A backup of a data directory, taken beside a daemon that works in it. The database is copied in one transaction; what its records refer to
 * is then held by hard links, which is sound because a saved state is never written again. A snapshot that was deleted in between is taken
 * out of the copy; when a sandbox was resumed in between, both are done anew. What a running sandbox has in memory and on its disk is in no
 * saved state, and so in no backup.
 */
import { cp, link, mkdir, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import type { FilesId } from '@instavm/core';
import { copyDatabase, forgetSnapshots } from '@instavm/store';
import { flush, makeOwnedDirectory, removeAbandonedDirectories, renameUnlessTaken } from '@instavm/vmm/host-files';
import { locateTemplates } from '@instavm/vmm/template-files';
import { InstaVMError } from '@instavm/wire';
import type { Config } from '../config.ts';
import { dataPaths } from '../data-directory.ts';
import { type Archive, DESCRIPTION, type Description, type Progress, pack } from './archive.ts';

const ATTEMPTS = 5;
/** Prefix of directories in the data directory that hold by links what is being packed. */
export const STAGED_BACKUP = '.backup';

export type BackupOptions = {
  /** False: the templates stay where they are, and the backup is for a host that has them. */
  readonly withTemplates: boolean;
};

/** @throws conflict when the destination exists; nothing of it is there after any failure */
export async function backUp(
  config: Config,
  destination: string,
  { withTemplates }: BackupOptions,
  say: Progress,
): Promise<void> {
  const target = resolve(destination);
  if ((await stat(target).catch(() => undefined)) !== undefined) throw exists(target);
  const data = dataPaths(config.INSTAVM_DATA_DIR);
  if ((await stat(data.databasePath).catch(() => undefined)) === undefined)
    throw new InstaVMError('conflict', `${config.INSTAVM_DATA_DIR} is no data directory of a daemon`, {
      hint: 'Set INSTAVM_DATA_DIR, or name the configuration file of the daemon with --config.',
    });
  // Links need the file system of what they lead to; what a killed backup left there is of no use.
  await removeAbandonedDirectories(config.INSTAVM_DATA_DIR, STAGED_BACKUP);
  const staging = await makeOwnedDirectory(config.INSTAVM_DATA_DIR, STAGED_BACKUP);
  const [parent, prefix] = [dirname(target), `${basename(target)}.partial`];
  let partial: string | undefined;
  try {
    // Another backup to the same place may be under way.
    await removeAbandonedDirectories(parent, prefix);
    partial = await makeOwnedDirectory(parent, prefix);
    const { schema, savedStates } = await stage(data, staging, say);
    say('packing the data directory');
    const archives: { 'data.tar': Archive; 'cache.tar'?: Archive } = {
      'data.tar': await pack(join(partial, 'data.tar'), staging, await readdir(staging), say),
    };
    const cache = withTemplates
      ? await locateTemplates(
          config.INSTAVM_CACHE_DIR,
          await Promise.all(savedStates.map((id) => join(staging, 'snapshots', id))),
        )
      : [];
    if (cache.length > 0) {
      say('packing the templates that the saved states rest on');
      archives['cache.tar'] = await pack(join(partial, 'cache.tar'), config.INSTAVM_CACHE_DIR, cache, say);
    }
    const description: Description = {
      ...{ format: 1, schema, createdAt: new Date().toISOString(), savedStates: savedStates.length },
      ...{ cacheDirectory: resolve(config.INSTAVM_CACHE_DIR), archives },
    };
    const text = `${JSON.stringify(description, null, 2)}\n`;
    await writeFile(join(partial, DESCRIPTION), text, { mode: 0o600, flush: true });
    if (!(await renameUnlessTaken(partial, target))) throw exists(target);
    await flush(parent);
    say(`${savedStates.length} saved states and the database of schema ${schema} are in ${target}`);
  } finally {
    if (partial !== undefined) await rm(partial, { recursive: true, force: true });
    await rm(staging, { recursive: true, force: true });
  }
}

const exists = (target: string): InstaVMError =>
  new InstaVMError('conflict', `${target} exists`, { hint: 'Name a directory that is not there yet.' });

type Staged = { readonly schema: string; readonly savedStates: readonly FilesId[] };

async function stage(data: ReturnType<typeof dataPaths>, staging: string, say: Progress): Promise<Staged> {
  const snapshots = join(staging, 'snapshots');
  const database = join(staging, basename(data.databasePath));
  for (let attempt = 1; ; attempt++) {
    say('copying the database');
    const { schema, files } = await copyDatabase(data.databasePath, database);
    await mkdir(snapshots, { mode: 0o700 });
    const gone: FilesId[] = [];
    for (const id of files) if (!(await hold(join(data.snapshotsDirectory, id), join(snapshots, id)))) gone.push(id);
    // A snapshot that was deleted since the copy was made: what is backed up is the moment after.
    const needed = gone.length === 0 ? [] : await forgetSnapshots(database, gone);
    if (needed.length === 0 || attempt === ATTEMPTS) {
      for (const id of gone) {
        const kept = needed.includes(id) ? 'its suspended sandbox cannot be resumed' : 'its snapshot is left out';
        say(`the saved state ${id} is not on the disk; ${kept}`);
      }
      for (const path of [data.adminKeyPath, data.signInSecretPath, data.previewDirectory])
        if ((await stat(path).catch(() => undefined)) !== undefined)
          await cp(path, join(staging, basename(path)), { recursive: true, preserveTimestamps: true });
      return { schema, savedStates: files.filter((id) => !gone.includes(id)) };
    }
    await rm(snapshots, { recursive: true });
    await rm(database);
  }
}

/** @returns false when it is not there, or went meanwhile */
async function hold(from: string, to: string): Promise<boolean> {
  try {
    await mkdir(to, { recursive: true, mode: 0o700 });
    for (const entry of await readdir(from, { withFileTypes: true, recursive: true })) {
      const path = join(entry.parentPath, entry.name);
      const held = join(to, path.slice(from.length));
      if (entry.isDirectory()) await mkdir(held, { recursive: true, mode: 0o700 });
      else {
        await mkdir(dirname(held), { recursive: true, mode: 0o700 });
        await link(path, held);
      }
    }
    // It goes all at once: while it is there, what was listed was all of it.
    await stat(from);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    await rm(to, { recursive: true, force: true });
    return false;
  }
}

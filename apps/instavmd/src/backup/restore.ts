/** A data directory made of a backup: all of it or nothing, and only where nothing is. Templates that are not on this host come along. */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { checkDatabase } from '@instavm/store';
import {
  makeOwnedDirectory,
  removeAbandonedDirectories,
  renameUnlessTaken,
  UNPACKED_TEMPLATES,
} from '@instavm/vmm/host-files';
import { relocateTemplates } from '@instavm/vmm/template-files';
import { InstaVMError } from '@instavm/wire';
import { dataPaths } from '../data-directory.ts';
import { holdAllOf } from '../templates/recording.ts';
import { TemplateUses } from '../templates/uses.ts';
import { type Description, damaged, type Progress, readDescription, unpack } from './archive.ts';

export type RestoreTo = { readonly dataDirectory: string; readonly cacheDirectory: string };

/** @throws conflict, backup_damaged, data_incompatible; the data directory is as it was then */
export async function restore(
  backup: string,
  { dataDirectory, cacheDirectory }: RestoreTo,
  say: Progress,
): Promise<void> {
  const target = resolve(dataDirectory);
  if (((await readdir(target).catch(() => [])) as string[]).length > 0) throw notEmpty(target);
  const description = await readDescription(backup);
  say(`a backup of ${description.createdAt}, schema ${description.schema}, ${description.savedStates} saved states`);
  const [parent, prefix] = [dirname(target), `${basename(target)}.partial`];
  await mkdir(parent, { recursive: true });
  await removeAbandonedDirectories(parent, prefix);
  const partial = await makeOwnedDirectory(parent, prefix);
  try {
    await unpack(join(backup, 'data.tar'), description.archives['data.tar'], partial, say);
    say('checking the database');
    const problem = await checkDatabase(dataPaths(partial).databasePath);
    if (problem !== undefined) throw damaged(`its database: ${problem}`);
    // Before they are there, so that nobody takes them away for want of a record.
    await holdAllOf(dataPaths(partial), new TemplateUses(cacheDirectory, target));
    await restoreTemplates(backup, description, cacheDirectory, say);
    if (!(await renameUnlessTaken(partial, target))) throw notEmpty(target);
    say(`restored into ${target}; start the daemon with INSTAVM_DATA_DIR=${target}`);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

const notEmpty = (target: string): InstaVMError =>
  new InstaVMError('conflict', `${target} is not empty`, {
    hint: 'Restore into a new directory (--data-dir), and start the daemon with it.',
  });

async function restoreTemplates(
  backup: string,
  { archives, cacheDirectory: from }: Description,
  cacheDirectory: string,
  say: Progress,
): Promise<void> {
  const archive = archives['cache.tar'];
  if (archive === undefined) return;
  await mkdir(cacheDirectory, { recursive: true });
  const unpacked = await makeOwnedDirectory(cacheDirectory, UNPACKED_TEMPLATES);
  try {
    say('the templates');
    await unpack(join(backup, 'cache.tar'), archive, unpacked, say);
    const to = resolve(cacheDirectory);
    await relocateTemplates(unpacked, { from, to });
    // Both are named after what is in them: one that is there already is the same.
    for (const kind of ['images', 'templates']) {
      for (const name of await readdir(join(unpacked, kind)).catch(() => [])) {
        const place = join(to, kind, name);
        await mkdir(dirname(place), { recursive: true, mode: kind === 'templates' ? 0o700 : 0o755 });
        await renameUnlessTaken(join(unpacked, kind, name), place);
      }
    }
  } finally {
    await rm(unpacked, { recursive: true, force: true });
  }
}

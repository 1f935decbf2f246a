/** Core's `SnapshotFiles`: one directory per saved state, below the data directory, for its owner only. */
import { mkdirSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FilesId, SnapshotFiles } from '@instavm/core';

/** A finished one bears its id alone; what a VMM writes beside it bears more. */
const NAME = /^(files_[a-z2-7]{20})/;

export function snapshotFiles(directory: string): SnapshotFiles {
  // Memory and disk of guests, with whatever secrets they hold.
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const removeWhere = async (isDoomed: (name: string, id: FilesId) => boolean): Promise<number> => {
    const doomed = (await readdir(directory)).filter((name) => {
      const id = NAME.exec(name)?.[1];
      return id !== undefined && isDoomed(name, id as FilesId);
    });
    await Promise.all(doomed.map((name) => rm(join(directory, name), { recursive: true, force: true })));
    return doomed.length;
  };
  return {
    directoryOf: (id) => join(directory, id),
    remove: async (id) => {
      await removeWhere((_, found) => found === id);
    },
    removeAllBut: (kept) => removeWhere((name) => !kept.has(name as FilesId)),
  };
}

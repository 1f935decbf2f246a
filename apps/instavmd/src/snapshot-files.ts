/** Core's `SnapshotFiles`: one directory per saved state, below the data directory, for its owner only. */
import { mkdirSync } from 'node:fs';
import { readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FilesId, SnapshotFiles, Vmm } from '@instavm/core';

const NAME = /^files_[a-z2-7]{20}$/;
const REMOVED = '.removed-';

export function snapshotFiles(directory: string, vmm: Vmm): SnapshotFiles {
  // Memory and disk of guests, with whatever secrets they hold.
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  /** All at once for whoever looks, as a backup does: file by file it would look whole when it is not. */
  const remove = async (id: FilesId): Promise<void> => {
    const removed = join(directory, `${REMOVED}${id}`);
    await rename(join(directory, id), removed).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== 'ENOENT') throw error;
    });
    await rm(removed, { recursive: true, force: true });
  };
  return {
    directoryOf: (id) => join(directory, id),
    remove,
    removeAllBut: async (kept) => {
      const partial = await vmm.removePartialSnapshots(directory);
      const names = await readdir(directory);
      const begun = names.filter((name) => name.startsWith(REMOVED));
      for (const name of begun) await rm(join(directory, name), { recursive: true, force: true });
      const doomed = names.filter((name) => NAME.test(name) && !kept.has(name as FilesId));
      await Promise.all(doomed.map((name) => remove(name as FilesId)));
      return partial + begun.length + doomed.length;
    },
  };
}

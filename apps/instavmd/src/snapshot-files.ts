/** Core's `SnapshotFiles`: one directory per saved state, below the data directory, for its owner only. */
import { mkdirSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { FilesId, SnapshotFiles, Vmm } from '@instavm/core';

const NAME = /^files_[a-z2-7]{20}$/;

export function snapshotFiles(directory: string, vmm: Vmm): SnapshotFiles {
  // Memory and disk of guests, with whatever secrets they hold.
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const remove = (id: FilesId): Promise<void> => rm(join(directory, id), { recursive: true, force: true });
  return {
    directoryOf: (id) => join(directory, id),
    remove,
    removeAllBut: async (kept) => {
      const partial = await vmm.removePartialSnapshots(directory);
      const doomed = (await readdir(directory)).filter((name) => NAME.test(name) && !kept.has(name as FilesId));
      await Promise.all(doomed.map((name) => remove(name as FilesId)));
      return partial + doomed.length;
    },
  };
}

/** Where the files of snapshots are: one directory each, named by its id, below the data directory. */
import { mkdir, readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseSnapshotId, type SnapshotDirectories, type SnapshotId, type Vmm } from '@instavm/core';

export async function snapshotDirectories(parent: string, vmm: Vmm): Promise<SnapshotDirectories> {
  await mkdir(parent, { recursive: true, mode: 0o700 });
  await vmm.removePartialSnapshots(parent);
  return {
    path: (id) => join(parent, id),
    list: async () => {
      const ids: SnapshotId[] = [];
      for (const name of await readdir(parent)) {
        const id = parseSnapshotId(name);
        if (id === undefined) await rm(join(parent, name), { recursive: true, force: true });
        else ids.push(id);
      }
      return ids;
    },
    remove: (id) => rm(join(parent, id), { recursive: true, force: true }),
  };
}

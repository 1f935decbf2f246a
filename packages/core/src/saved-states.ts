/**
 * Directories of saved state: found before they are restored, held while they are read, and removed when no record refers to them and
 * nobody reads them.
 */
import { InstaVMError } from '@instavm/wire';
import type { FilesId } from './ids.ts';
import type { SnapshotFiles, SnapshotRecords } from './snapshot.ts';
import type { Vmm, VmSnapshot } from './vmm.ts';

export class SavedStates {
  readonly #vmm: Vmm;
  readonly #files: SnapshotFiles;
  readonly #records: SnapshotRecords;
  readonly #readers = new Map<FilesId, number>();

  constructor(vmm: Vmm, files: SnapshotFiles, records: SnapshotRecords) {
    this.#vmm = vmm;
    this.#files = files;
    this.#records = records;
  }

  directoryOf(id: FilesId): string {
    return this.#files.directoryOf(id);
  }

  /** @returns undefined for what was never finished or was damaged since */
  find(id: FilesId): Promise<VmSnapshot | undefined> {
    return this.#vmm.findSnapshot(this.#files.directoryOf(id));
  }

  /** Its files stay until `read` is done, whoever deletes it meanwhile. @throws snapshot_damaged, and as `read` */
  async use<T>(id: FilesId, read: (state: VmSnapshot) => Promise<T>): Promise<T> {
    this.#readers.set(id, (this.#readers.get(id) ?? 0) + 1);
    try {
      const state = await this.find(id);
      if (state === undefined)
        throw new InstaVMError('snapshot_damaged', 'the saved state is not complete, or was changed since');
      return await read(state);
    } finally {
      const left = (this.#readers.get(id) ?? 1) - 1;
      if (left > 0) this.#readers.set(id, left);
      else this.#readers.delete(id);
      if (left === 0) await this.release(id);
    }
  }

  /** Removes the files unless a record still refers to them or someone reads them. */
  async release(id: FilesId): Promise<void> {
    if (this.#readers.has(id) || (await this.#records.refersTo(id))) return;
    await this.#files.remove(id);
  }

  /** Removes all that no record refers to; for the start, when nobody reads. @returns how many */
  async sweep(): Promise<number> {
    return this.#files.removeAllBut(await this.#records.listFiles());
  }
}

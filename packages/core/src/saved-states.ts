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
  /** Those who read together find, and verify, only once. */
  readonly #readers = new Map<FilesId, { count: number; readonly found: Promise<VmSnapshot | undefined> }>();

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
    const reading = this.#readers.get(id) ?? { count: 0, found: this.find(id) };
    reading.count++;
    this.#readers.set(id, reading);
    try {
      const state = await reading.found;
      if (state === undefined)
        throw new InstaVMError('snapshot_damaged', 'the saved state is not complete, or was changed since');
      return await read(state);
    } finally {
      reading.count--;
      if (reading.count === 0) {
        this.#readers.delete(id);
        await this.release(id);
      }
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

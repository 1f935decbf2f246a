/**
 * Snapshots of all sandboxes: their records, and the directories that the VMM fills. A directory without a record, or a record whose
 * directory is not complete, is no snapshot.
 */
import { InstaVMError } from '@instavm/wire';
import type { Clock } from './clock.ts';
import { type AccountId, newSnapshotId, type SnapshotId } from './ids.ts';
import type { LifecycleLog } from './incarnation.ts';
import type { SnapshotRecord, SnapshotRecordStore } from './records.ts';
import type { SandboxRecord } from './sandbox.ts';
import type { MicroVm, Vmm, VmSnapshot } from './vmm.ts';

/** The directories of snapshots, by id. */
export interface SnapshotDirectories {
  path(id: SnapshotId): string;
  /** Ids of all that are there, and what is none is removed. */
  list(): Promise<SnapshotId[]>;
  remove(id: SnapshotId): Promise<void>;
}

export type SnapshotDependencies = {
  readonly vmm: Vmm;
  readonly records: SnapshotRecordStore;
  readonly directories: SnapshotDirectories;
  readonly clock: Clock;
  readonly log: LifecycleLog;
};

export class Snapshots {
  readonly #deps: SnapshotDependencies;
  /** Directories that are being read or written: not to be removed under that. */
  readonly #inUse = new Map<SnapshotId, number>();

  constructor(deps: SnapshotDependencies) {
    this.#deps = deps;
  }

  /** Records a snapshot that is about to be taken. */
  async begin(source: SandboxRecord, name: string): Promise<SnapshotRecord> {
    const { accountId, incarnationId, size, ttlSeconds, env, metadata, egress, autoSuspend, autoResume } = source;
    const now = this.#deps.clock.now();
    const record: SnapshotRecord = {
      id: newSnapshotId(),
      accountId,
      name,
      status: 'building',
      error: null,
      sourceIncarnationId: incarnationId,
      settings: { size, ttlSeconds, env, metadata, egress, autoSuspend, autoResume },
      storedBytes: 0,
      createdAt: now,
      lastUsedAt: now,
    };
    await this.#deps.records.insert(record);
    return record;
  }

  /** Takes it; the record says how that went. @throws snapshot_failed, capacity_unavailable */
  async take({ id }: SnapshotRecord, vm: MicroVm): Promise<void> {
    const { records } = this.#deps;
    try {
      const { storedBytes } = await this.store(id, vm, 'continue');
      await records.update(id, { status: 'ready', storedBytes });
    } catch (error) {
      const reason = error instanceof InstaVMError ? error.message : 'the snapshot could not be taken';
      await records.update(id, { status: 'failed', error: reason });
      throw error;
    }
  }

  /** Fills the directory of an id. */
  store(id: SnapshotId, vm: MicroVm, then: 'continue' | 'end'): Promise<VmSnapshot> {
    return this.#using(id, () => vm.snapshot(this.#deps.directories.path(id), then));
  }

  /** Runs `work` with the complete snapshot of an id. @throws snapshot_failed when its files are not what they were */
  load<T>(id: SnapshotId, work: (snapshot: VmSnapshot) => Promise<T>): Promise<T> {
    return this.#using(id, async () => {
      const snapshot = await this.#deps.vmm.findSnapshot(this.#deps.directories.path(id));
      if (snapshot === undefined) throw new InstaVMError('snapshot_failed', 'the files of the snapshot are damaged');
      return work(snapshot);
    });
  }

  /** @throws snapshot_not_found, also for another account's */
  async get(accountId: AccountId, id: SnapshotId): Promise<SnapshotRecord> {
    const record = await this.#deps.records.find(id);
    if (record?.accountId !== accountId) throw new InstaVMError('snapshot_not_found', `there is no snapshot ${id}`);
    return record;
  }

  /** One that a sandbox can begin in. @throws snapshot_not_found, snapshot_not_ready */
  async usable(accountId: AccountId, id: SnapshotId): Promise<SnapshotRecord> {
    const record = await this.get(accountId, id);
    if (record.status !== 'ready')
      throw new InstaVMError(
        'snapshot_not_ready',
        `the snapshot is ${record.status}${record.error ? `: ${record.error}` : ''}`,
      );
    await this.#deps.records.update(id, { lastUsedAt: this.#deps.clock.now() });
    return record;
  }

  list(accountId: AccountId, limit: number): Promise<SnapshotRecord[]> {
    return this.#deps.records.list(accountId, limit);
  }

  /** @throws snapshot_not_found; conflict while a sandbox is being made from it */
  async delete(accountId: AccountId, id: SnapshotId): Promise<void> {
    await this.get(accountId, id);
    if (this.#inUse.has(id)) throw new InstaVMError('conflict', 'the snapshot is being taken or restored');
    await this.#deps.records.delete(id);
    await this.#deps.directories.remove(id);
  }

  /** Removes the files of one that has no record of its own: a suspension's. */
  discard(id: SnapshotId): Promise<void> {
    return this.#deps.directories.remove(id);
  }

  /** @returns whether the files of an id are complete */
  async isComplete(id: SnapshotId): Promise<boolean> {
    return (await this.#deps.vmm.findSnapshot(this.#deps.directories.path(id))) !== undefined;
  }

  /**
   * After a start: what was being taken has failed, files that nobody knows go, and so do those that expire.
   * @param suspensions ids that sandboxes are suspended in
   * @returns how many were removed
   */
  async reconcile(suspensions: ReadonlySet<SnapshotId>): Promise<number> {
    const { records, directories } = this.#deps;
    const known = new Set(suspensions);
    for (const { id, status } of await records.listAll()) {
      known.add(id);
      if (status === 'building') await records.update(id, { status: 'failed', error: 'the daemon ended meanwhile' });
    }
    let removed = 0;
    for (const id of await directories.list()) {
      if (known.has(id)) continue;
      await directories.remove(id);
      removed++;
    }
    return removed;
  }

  /** Deletes those that the Agents SDK leaves after every run and that nobody used since. @returns how many */
  async expire(namePrefix: string, unusedMs: number): Promise<number> {
    const { records, directories, clock, log } = this.#deps;
    const before = clock.now().getTime() - unusedMs;
    let expired = 0;
    for (const { id, name, status, lastUsedAt } of await records.listAll()) {
      if (!name.startsWith(namePrefix) || status === 'building' || lastUsedAt.getTime() > before) continue;
      if (this.#inUse.has(id)) continue;
      await records.delete(id);
      await directories.remove(id);
      expired++;
    }
    if (expired > 0) log.info({ expired }, 'deleted snapshots that nobody used');
    return expired;
  }

  async #using<T>(id: SnapshotId, work: () => Promise<T>): Promise<T> {
    this.#inUse.set(id, (this.#inUse.get(id) ?? 0) + 1);
    try {
      return await work();
    } finally {
      const left = (this.#inUse.get(id) ?? 1) - 1;
      if (left === 0) this.#inUse.delete(id);
      else this.#inUse.set(id, left);
    }
  }
}

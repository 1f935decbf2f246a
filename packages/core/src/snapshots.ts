/**
 * Snapshots of sandboxes: taken, listed, deleted, expired. A record says `building` before anything is written and `ready` only when all
 * of it is on disk; nothing else can be restored.
 */
import { InstaVMError } from '@instavm/wire';
import type { Clock } from './clock.ts';
import type { GuestLink } from './guest.ts';
import { type AccountId, newFilesId, newSnapshotId, type SnapshotId } from './ids.ts';
import type { LifecycleLog } from './log.ts';
import type { SandboxOwner } from './owner.ts';
import { type QuotaSource, type Quotas, requireQuota } from './quotas.ts';
import type { Entries } from './records.ts';
import { specOf } from './sandbox.ts';
import type { SavedStates } from './saved-states.ts';
import { SerialQueue } from './serial-queue.ts';
import type { SnapshotRecord, SnapshotRecords } from './snapshot.ts';
import type { StepObserver } from './steps.ts';

export type SnapshotPorts = {
  readonly snapshots: SnapshotRecords;
  readonly states: SavedStates;
  readonly clock: Clock;
  readonly log: LifecycleLog;
  readonly reached: StepObserver;
  readonly quotas: QuotaSource;
};

const MIB = 1_024 ** 2;

export type TakeOptions = { readonly name?: string | null; readonly isTransient?: boolean };

export class Snapshots<Guest extends GuestLink> {
  readonly #ports: SnapshotPorts;
  /** Those that are being made, with their end. */
  readonly #building = new Map<SnapshotId, Promise<SnapshotRecord>>();
  /** What has room is recorded before the next one is judged, so that two cannot both be the last. */
  readonly #admitting = new SerialQueue();

  constructor(ports: SnapshotPorts) {
    this.#ports = ports;
  }

  /** @returns when the intent is recorded; `done` settles when it is ready or has failed. @throws invalid_state at once when it cannot begin, quota_exceeded */
  async take(
    owner: SandboxOwner<Guest>,
    { name = null, isTransient = false }: TakeOptions = {},
  ): Promise<{ record: SnapshotRecord; done: Promise<SnapshotRecord> }> {
    const { snapshots, clock, reached } = this.#ports;
    owner.checkSnapshot();
    const { accountId, id: sandboxId, incarnationId } = owner.record;
    const now = clock.now();
    const made = { id: newSnapshotId(), filesId: newFilesId(), accountId, sandboxId, incarnationId, name, isTransient };
    const unknown = { lastError: null, templateKey: null, sizeBytes: null };
    const times = { createdAt: now, updatedAt: now, usedAt: now };
    const record: SnapshotRecord = { ...made, ...unknown, ...times, status: 'building', spec: specOf(owner.record) };
    await this.#admitting.run(async () => {
      if (!isTransient) await this.#requireRoom(accountId);
      await snapshots.insert(record);
    });
    reached('snapshot.recorded');
    const done = this.#build(owner, record).finally(() => this.#building.delete(record.id));
    this.#building.set(record.id, done);
    // Its end is in the record for whoever does not wait.
    done.catch(() => {});
    return { record, done };
  }

  /** @throws snapshot_not_found, also for another account's */
  async get(accountId: AccountId, id: SnapshotId): Promise<SnapshotRecord> {
    const record = await this.#ports.snapshots.find(id);
    if (record?.accountId !== accountId || record.isTransient)
      throw new InstaVMError('snapshot_not_found', `there is no snapshot ${id}`);
    return record;
  }

  /** Newest first. */
  list(accountId: AccountId, limit: number, metadata?: readonly Entries[]): Promise<SnapshotRecord[]> {
    return this.#ports.snapshots.list(accountId, limit, metadata);
  }

  /** For a restore, which counts as use. @throws snapshot_not_found, snapshot_not_ready */
  async getReady(accountId: AccountId, id: SnapshotId): Promise<SnapshotRecord> {
    const record = await this.get(accountId, id);
    if (record.status !== 'ready') {
      const why = record.lastError === null ? '' : `: ${record.lastError}`;
      const details = { status: record.status };
      throw new InstaVMError('snapshot_not_ready', `the snapshot is ${record.status}${why}`, { details });
    }
    await this.#ports.snapshots.update(id, { usedAt: this.#ports.clock.now() });
    return record;
  }

  /** A restore that reads it meanwhile is not disturbed. @throws snapshot_not_found */
  async delete(accountId: AccountId, id: SnapshotId): Promise<SnapshotRecord> {
    const record = await this.get(accountId, id);
    await this.remove(record);
    return record;
  }

  /** Waits for one that is being made. */
  async remove({ id, filesId }: SnapshotRecord): Promise<void> {
    const { snapshots, states, reached } = this.#ports;
    await this.#building.get(id)?.catch(() => {});
    // One that was made of a suspended sandbox has that one's files.
    const files = (await snapshots.find(id))?.filesId ?? filesId;
    await snapshots.delete(id);
    reached('delete.forgotten');
    await states.release(files);
    reached('delete.removed');
  }

  /** Removes snapshots that clients leave behind by habit. @returns how many */
  async expire(namePrefix: string, unusedMs: number): Promise<number> {
    const before = new Date(this.#ports.clock.now().getTime() - unusedMs);
    const { snapshots } = this.#ports;
    let removed = 0;
    for (const { id } of await snapshots.listUnused(namePrefix, before)) {
      // Removing those before it took its time.
      const record = await snapshots.find(id);
      if (record === undefined || record.usedAt >= before) continue;
      await this.remove(record);
      removed++;
    }
    return removed;
  }

  /** After a start: what is complete on disk becomes ready, what is not is failed, and what was for a clone goes. */
  async recover(): Promise<void> {
    const { snapshots, states, clock, log } = this.#ports;
    for (const { id, filesId, isTransient } of await snapshots.listUnsettled()) {
      if (isTransient) {
        await snapshots.delete(id);
        continue;
      }
      const state = await states.find(filesId);
      log.warn({ snapshotId: id, isComplete: state !== undefined }, 'a snapshot was being made when the daemon ended');
      const settled =
        state === undefined
          ? ({ status: 'failed', lastError: 'the daemon ended while it was made' } as const)
          : ({ status: 'ready', templateKey: state.templateKey, sizeBytes: state.storedBytes } as const);
      await snapshots.update(id, { ...settled, updatedAt: clock.now() });
    }
  }

  /** Waits for those that are being made. */
  async close(): Promise<void> {
    await Promise.allSettled(this.#building.values());
  }

  /** What counts against the quotas of the account. */
  async keptBy(accountId: AccountId): Promise<Pick<Quotas, 'snapshots' | 'storedMib'>> {
    const { snapshots, storedBytes } = await this.#ports.snapshots.keptBy(accountId);
    return { snapshots, storedMib: storedBytes / MIB };
  }

  /** For what can be suspended later, which nothing refuses. @throws quota_exceeded when the account stores more than it may */
  async requireStorage(accountId: AccountId): Promise<void> {
    const [limits, kept] = await Promise.all([this.#ports.quotas.of(accountId), this.keptBy(accountId)]);
    requireQuota(limits, 'storedMib', kept.storedMib, 0);
  }

  /** @throws quota_exceeded */
  async #requireRoom(accountId: AccountId): Promise<void> {
    const [limits, kept] = await Promise.all([this.#ports.quotas.of(accountId), this.keptBy(accountId)]);
    requireQuota(limits, 'snapshots', kept.snapshots, 1);
    // How large it will be is not known before it is there.
    requireQuota(limits, 'storedMib', kept.storedMib, 0);
  }

  async #build(owner: SandboxOwner<Guest>, record: SnapshotRecord): Promise<SnapshotRecord> {
    const { snapshots, states, clock, log, reached } = this.#ports;
    const { id, filesId } = record;
    let ready = record;
    try {
      await owner.snapshot(filesId, async ({ filesId: savedIn, state }, source) => {
        reached('snapshot.saved');
        const { templateKey, storedBytes: sizeBytes } = state;
        const change = { filesId: savedIn, templateKey, sizeBytes, spec: specOf(source) };
        ready = { ...record, ...change, status: 'ready', updatedAt: clock.now() };
        await snapshots.update(id, { ...change, status: 'ready', updatedAt: ready.updatedAt });
        reached('snapshot.ready');
      });
      log.info({ snapshotId: id, sandboxId: record.sandboxId, storedBytes: ready.sizeBytes }, 'snapshot ready');
      return ready;
    } catch (error) {
      log.warn({ snapshotId: id, sandboxId: record.sandboxId, err: error }, 'snapshot failed');
      const lastError = error instanceof InstaVMError ? error.message : 'something went wrong on the server';
      await snapshots.update(id, { status: 'failed', lastError, updatedAt: clock.now() });
      await states.release(filesId);
      throw error;
    }
  }
}

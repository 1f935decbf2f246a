/** The store port: what the lifecycle needs kept. Implemented by `@instavm/store`. */
import type { AccountId, IncarnationId, SandboxId, SnapshotId } from './ids.ts';
import type { SandboxRecord } from './sandbox.ts';

export type SandboxChange = Partial<Omit<SandboxRecord, 'id' | 'accountId' | 'createdAt'>>;

export interface SandboxRecords {
  insert(record: SandboxRecord): Promise<void>;
  /**
   * Applies a change if the record is still at `epoch`; the fence against a late writer.
   * @returns false when it was not, and nothing was changed
   */
  update(id: SandboxId, epoch: number, change: SandboxChange): Promise<boolean>;
  find(id: SandboxId): Promise<SandboxRecord | undefined>;
  findByIncarnation(id: IncarnationId): Promise<SandboxRecord | undefined>;
  /** Newest first; `alive` leaves out those without a microVM. */
  list(accountId: AccountId, limit: number, alive?: boolean): Promise<SandboxRecord[]>;
  /** Forgets those that ended before an instant. @returns how many */
  prune(endedBefore: Date): Promise<number>;
  /** Those that a daemon of before left in a state that only a running daemon keeps, and those that are suspended. */
  listUnsettled(): Promise<SandboxRecord[]>;
}

export type SnapshotStatus = 'building' | 'ready' | 'failed';

/** A snapshot that a user owns and names: its files, and what a sandbox that begins in it is made with. */
export type SnapshotRecord = {
  readonly id: SnapshotId;
  readonly accountId: AccountId;
  readonly name: string;
  readonly status: SnapshotStatus;
  /** Why it failed. */
  readonly error: string | null;
  readonly sourceIncarnationId: IncarnationId | null;
  readonly settings: Pick<
    SandboxRecord,
    'size' | 'ttlSeconds' | 'env' | 'metadata' | 'egress' | 'autoSuspend' | 'autoResume'
  >;
  readonly storedBytes: number;
  readonly createdAt: Date;
  readonly lastUsedAt: Date;
};

export type SnapshotChange = Partial<Pick<SnapshotRecord, 'status' | 'error' | 'storedBytes' | 'lastUsedAt'>>;

export interface SnapshotRecordStore {
  insert(record: SnapshotRecord): Promise<void>;
  update(id: SnapshotId, change: SnapshotChange): Promise<void>;
  find(id: SnapshotId): Promise<SnapshotRecord | undefined>;
  /** Newest first. */
  list(accountId: AccountId, limit: number): Promise<SnapshotRecord[]>;
  /** Of every account. */
  listAll(): Promise<SnapshotRecord[]>;
  delete(id: SnapshotId): Promise<void>;
}

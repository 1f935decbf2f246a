/** A snapshot as a record, and the ports that keep its record and its files. */
import type { AccountId, FilesId, IncarnationId, SandboxId, SnapshotId, TemplateKey } from './ids.ts';
import type { Entries } from './records.ts';
import type { SandboxSpec } from './sandbox.ts';

/** Only what is `ready` can be restored; `failed` says why in `lastError`. */
export type SnapshotStatus = 'building' | 'ready' | 'failed';

export type SnapshotRecord = {
  readonly id: SnapshotId;
  readonly accountId: AccountId;
  readonly name: string | null;
  readonly status: SnapshotStatus;
  readonly lastError: string | null;
  /** True for one that exists only while a sandbox is cloned: it is in no list, and a start removes what is left of it. */
  readonly isTransient: boolean;
  readonly sandboxId: SandboxId;
  readonly incarnationId: IncarnationId | null;
  /** Where its files are; a sandbox that is suspended may share them. */
  readonly filesId: FilesId;
  readonly spec: SandboxSpec;
  /** Null until it is ready. */
  readonly templateKey: TemplateKey | null;
  readonly sizeBytes: number | null;
  readonly createdAt: Date;
  readonly updatedAt: Date;
  /** When it was made or last restored; what nobody uses may expire. */
  readonly usedAt: Date;
};

export type SnapshotChange = Partial<Omit<SnapshotRecord, 'id' | 'accountId' | 'createdAt'>>;

export interface SnapshotRecords {
  insert(record: SnapshotRecord): Promise<void>;
  update(id: SnapshotId, change: SnapshotChange): Promise<void>;
  find(id: SnapshotId): Promise<SnapshotRecord | undefined>;
  /** Newest first, without transient ones. */
  list(accountId: AccountId, limit: number, metadata?: readonly Entries[]): Promise<SnapshotRecord[]>;
  /** @returns whether it was there */
  delete(id: SnapshotId): Promise<boolean>;
  /** Those that a daemon of before left half-made or meant to remove. */
  listUnsettled(): Promise<SnapshotRecord[]>;
  /** Ready ones whose name begins so and that nobody used since an instant. */
  listUnused(namePrefix: string, usedBefore: Date): Promise<SnapshotRecord[]>;
  /** What an account keeps: snapshots that have not failed and are not transient, and the bytes of those and of suspended sandboxes. */
  keptBy(accountId: AccountId): Promise<{ readonly snapshots: number; readonly storedBytes: number }>;
  /** Whether a snapshot or a sandbox does. */
  refersTo(id: FilesId): Promise<boolean>;
  /** Every directory of saved state that a snapshot or a sandbox refers to. */
  listFiles(): Promise<Set<FilesId>>;
}

/** Directories of saved state. The VMM writes and reads what is in them. */
export interface SnapshotFiles {
  /** Where the VMM puts it; nothing is there yet. */
  directoryOf(id: FilesId): string;
  /** Idempotent; takes what a VMM left beside it too. */
  remove(id: FilesId): Promise<void>;
  /** Removes everything that is not listed, and what was never finished. @returns how many */
  removeAllBut(kept: ReadonlySet<FilesId>): Promise<number>;
}

/** The store port: what the lifecycle needs kept. Implemented by `@instavm/store`. */
import type { NewAuditEvent } from './audit/event.ts';
import type { AccountId, IncarnationId, SandboxId } from './ids.ts';
import type { SandboxRecord } from './sandbox.ts';

export type SandboxChange = Partial<Omit<SandboxRecord, 'id' | 'accountId' | 'createdAt'>>;

/** What metadata must have, all of it. */
export type Entries = Readonly<Record<string, unknown>>;

export type SandboxPage = {
  readonly limit: number;
  /** Only those with a microVM. */
  readonly alive?: boolean | undefined;
  /** Also those that have ended; true when left out. */
  readonly ended?: boolean | undefined;
  /** Only those whose metadata has what each of these has. */
  readonly metadata?: readonly Entries[] | undefined;
  /** Those that come after it. */
  readonly before?: Pick<SandboxRecord, 'id' | 'createdAt'> | undefined;
};

export interface SandboxRecords {
  /** @param events of the audit trail that say so: both are kept, or neither */
  insert(record: SandboxRecord, events?: readonly NewAuditEvent[]): Promise<void>;
  /**
   * Applies a change if the record is still at `epoch`; the fence against a late writer.
   * @param events as of `insert`
   * @returns false when it was not, and nothing was changed
   */
  update(id: SandboxId, epoch: number, change: SandboxChange, events?: readonly NewAuditEvent[]): Promise<boolean>;
  find(id: SandboxId): Promise<SandboxRecord | undefined>;
  /** Also by an earlier incarnation of it: clients keep the id that they were given first. */
  findByIncarnation(id: IncarnationId): Promise<SandboxRecord | undefined>;
  /** Newest first. */
  list(accountId: AccountId, page: SandboxPage): Promise<SandboxRecord[]>;
  /** Forgets those that ended before an instant. @returns how many */
  prune(endedBefore: Date): Promise<number>;
  /** Those that a daemon of before left in a state that only a running daemon keeps. */
  listUnsettled(): Promise<SandboxRecord[]>;
}

/** The ledger: what accounts were given and charged, in entries that are only ever added. Implemented by `@instavm/store`. */
import type { AccountId, IncarnationId, SandboxId } from '../ids.ts';
import type { MachineSize } from '../vmm.ts';

export type ChargeKind = 'vm_execution' | 'snapshot_storage' | 'egress';
export type EntryKind = ChargeKind | 'grant';

export type LedgerEntry = {
  /** Made from what the entry is about, never from chance: the same use can be written any number of times and is charged once. */
  readonly key: string;
  readonly accountId: AccountId;
  readonly kind: EntryKind;
  /** Positive for what is given, negative for what is charged. */
  readonly microDollars: number;
  readonly resourceId: string | null;
  /** What it is for. A charge lies within one hour (UTC). */
  readonly from: Date;
  readonly to: Date;
  readonly vcpuMs: number;
  /** Mebibytes times milliseconds: of memory, or of what is stored. */
  readonly mibMs: number;
  readonly bytes: number;
  /** For people. */
  readonly note: string | null;
};

export interface Ledger {
  /** Those whose key is there already change nothing. */
  add(entries: readonly LedgerEntry[]): Promise<void>;
  /** The sum of an account's entries, in micro-dollars. */
  balanceOf(accountId: AccountId): Promise<number>;
}

/** A microVM that is being charged for, as a daemon leaves it to the next one. */
export type MeteredRun = {
  readonly incarnationId: IncarnationId;
  readonly sandboxId: SandboxId;
  readonly accountId: AccountId;
  readonly size: MachineSize;
  readonly beganAt: Date;
  /** The ledger has it up to here. */
  readonly chargedUntil: Date;
  /** Sent since then. */
  readonly egressBytes: number;
};

/** All of it or nothing. */
export type UsageChange = {
  /** Until when the daemon has watched. */
  readonly watchedUntil: Date;
  readonly entries: readonly LedgerEntry[];
  /** New ones, and those that have changed. */
  readonly runs: readonly MeteredRun[];
  readonly ended: readonly IncarnationId[];
};

export type StoredBytes = { readonly accountId: AccountId; readonly bytes: number; readonly since: Date };

export interface UsageStore {
  /** @returns what a daemon of before has left; `watchedUntil` is null when there was none that metered */
  load(): Promise<{ readonly watchedUntil: Date | null; readonly runs: readonly MeteredRun[] }>;
  commit(change: UsageChange): Promise<void>;
  /** Snapshots and the memory of suspended sandboxes, files that several of them share counted once. */
  listStored(): Promise<StoredBytes[]>;
}

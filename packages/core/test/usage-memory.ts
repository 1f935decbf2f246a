/** The ledger and what the meter leaves, in memory; survives a daemon. A commit can be made to fail, before or after it took place. */
import type {
  AccountId,
  IncarnationId,
  Ledger,
  LedgerEntry,
  MeteredRun,
  StoredBytes,
  UsageStore,
} from '../src/index.ts';

export class UsageMemory implements UsageStore, Ledger {
  readonly entries = new Map<string, LedgerEntry>();
  readonly runs = new Map<IncarnationId, MeteredRun>();
  stored: StoredBytes[] = [];
  watchedUntil: Date | null = null;
  fails: 'before' | 'after' | undefined;
  /** A commit waits for it. */
  gate: Promise<void> | undefined;

  async load() {
    return { watchedUntil: this.watchedUntil, runs: [...this.runs.values()] };
  }

  async commit(change: Parameters<UsageStore['commit']>[0]): Promise<void> {
    await this.gate;
    const { fails } = this;
    this.fails = undefined;
    if (fails === 'before') throw new Error('it was not written');
    this.watchedUntil = change.watchedUntil;
    await this.add(change.entries);
    for (const run of change.runs) this.runs.set(run.incarnationId, run);
    for (const id of change.ended) this.runs.delete(id);
    if (fails === 'after') throw new Error('it was written, and nobody knows');
  }

  async listStored(): Promise<StoredBytes[]> {
    return this.stored;
  }

  async add(entries: readonly LedgerEntry[]): Promise<void> {
    for (const entry of entries) if (!this.entries.has(entry.key)) this.entries.set(entry.key, entry);
  }

  async balanceOf(accountId: AccountId): Promise<number> {
    return this.sum('microDollars', accountId);
  }

  sum(what: 'microDollars' | 'vcpuMs' | 'mibMs' | 'bytes', accountId?: AccountId): number {
    const own = [...this.entries.values()].filter((each) => accountId === undefined || each.accountId === accountId);
    return own.reduce((total, entry) => total + entry[what], 0);
  }
}

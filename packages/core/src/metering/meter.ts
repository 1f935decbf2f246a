/**
 * The meter: what running microVMs, saved states and outbound traffic cost, into the ledger. It is told in memory and writes once a
 * tick, so no request waits for it. A crash loses at most the last tick: what ran is known from the tick before, when it ended from the
 * record of the sandbox, and every entry has a key, so nothing is charged twice.
 */
import type { Clock } from '../clock.ts';
import type { AccountId, IncarnationId, SandboxId } from '../ids.ts';
import type { LifecycleLog } from '../log.ts';
import type { SandboxRecords } from '../records.ts';
import type { SandboxRecord } from '../sandbox.ts';
import type { LedgerEntry, MeteredRun, UsageStore } from './ledger.ts';
import { egressCost, hourOf, nextHour, type Rates, runCost, storageCost } from './rates.ts';

/** Told of every sandbox that begins or ceases to run. Must not throw, and does not wait. */
export interface UsageObserver {
  began(record: SandboxRecord): void;
  ended(record: SandboxRecord): void;
}

export type MeterPorts = {
  readonly store: UsageStore;
  readonly rates: Rates;
  readonly clock: Clock;
  readonly log: Pick<LifecycleLog, 'warn'>;
};

/** Since the ledger was last written. */
export type Accrued = {
  readonly microDollars: number;
  readonly vcpuMs: number;
  readonly mibMs: number;
  readonly egressBytes: number;
};

type Run = { -readonly [Key in keyof MeteredRun]: MeteredRun[Key] };
type Ended = { readonly run: Run; readonly at: Date };

export class Meter implements UsageObserver {
  readonly #ports: MeterPorts;
  readonly #runs = new Map<IncarnationId, Run>();
  readonly #bySandbox = new Map<SandboxId, Run>();
  /** Those whose last pieces the ledger does not have yet. */
  #ended: Ended[] = [];
  /** Not yet stored as they are. */
  #changed = new Set<Run>();
  #watchedUntil: Date | null = null;
  #writing: Promise<void> = Promise.resolve();
  #inherited: readonly MeteredRun[] = [];

  constructor(ports: MeterPorts) {
    this.#ports = ports;
  }

  /** Before sandboxes of an earlier daemon are taken over: what it left. */
  async load(): Promise<void> {
    const { watchedUntil, runs } = await this.#ports.store.load();
    this.#watchedUntil = watchedUntil;
    this.#inherited = runs;
  }

  /** After they are: what runs on is charged without a gap, the rest up to when it ended, or was last seen. */
  async takeOver(records: Pick<SandboxRecords, 'find' | 'listUnsettled'>): Promise<void> {
    const now = this.#ports.clock.now();
    const seen = this.#watchedUntil ?? now;
    for (const run of this.#inherited) {
      const record = await records.find(run.sandboxId);
      const isIt = record?.incarnationId === run.incarnationId;
      if (isIt && record.state === 'running') {
        this.#add({ ...run });
        continue;
      }
      const endedAt = (isIt && record.endedAt) || seen;
      const at = new Date(Math.min(endedAt.getTime(), seen.getTime()));
      this.#ended.push({ run: { ...run }, at: latest(run.chargedUntil, at) });
    }
    this.#inherited = [];
    // Those that began after the last tick.
    for (const record of await records.listUnsettled()) {
      if (record.state !== 'running' || record.incarnationId === null || this.#runs.has(record.incarnationId)) continue;
      this.#begin(record, latest(record.startedAt ?? now, seen));
    }
    await this.tick();
  }

  began(record: SandboxRecord): void {
    this.#begin(record, this.#ports.clock.now());
  }

  ended({ incarnationId }: SandboxRecord): void {
    const run = incarnationId === null ? undefined : this.#runs.get(incarnationId);
    if (run === undefined) return;
    this.#runs.delete(run.incarnationId);
    if (this.#bySandbox.get(run.sandboxId) === run) this.#bySandbox.delete(run.sandboxId);
    this.#ended.push({ run, at: this.#ports.clock.now() });
  }

  /** Bytes that a guest has sent out. */
  sent(sandboxId: SandboxId, bytes: number): void {
    const run = this.#bySandbox.get(sandboxId);
    if (run === undefined) return;
    run.egressBytes += bytes;
    this.#changed.add(run);
  }

  /** Up to when the ledger knows what ran; null: it never did. */
  get watchedUntil(): Date | null {
    return this.#watchedUntil;
  }

  /** Those with something running. */
  accounts(): Set<AccountId> {
    return new Set([...this.#runs.values()].map(({ accountId }) => accountId));
  }

  /** What an account has used that its balance does not show yet. */
  accruedOf(accountId: AccountId): Accrued {
    const now = this.#ports.clock.now();
    const running = [...this.#runs.values()].map((run): Ended => ({ run, at: now }));
    const own = [...running, ...this.#ended].filter(({ run }) => run.accountId === accountId);
    const sum = { microDollars: 0, vcpuMs: 0, mibMs: 0, egressBytes: 0 };
    for (const { run, at } of own) {
      for (const entry of this.#entriesOf(run, at)) {
        sum.microDollars -= entry.microDollars;
        sum.vcpuMs += entry.vcpuMs;
        sum.mibMs += entry.mibMs;
        sum.egressBytes += entry.bytes;
      }
    }
    return sum;
  }

  /** What the ledger says, read while nothing is being written to it, beside what it does not have yet. */
  beside<T>(accountId: AccountId, read: () => Promise<T>): Promise<{ readonly value: T; readonly accrued: Accrued }> {
    const reading = this.#writing.then(async () => ({ value: await read(), accrued: this.accruedOf(accountId) }));
    this.#writing = reading.then(
      () => {},
      () => {},
    );
    return reading;
  }

  /** Writes what there is to write. Never rejects: what could not be written is written with the next tick. */
  tick(): Promise<void> {
    this.#writing = this.#writing.then(() =>
      this.#write().catch((err: unknown) => this.#ports.log.warn({ err }, 'the meter could not write')),
    );
    return this.#writing;
  }

  async #write(): Promise<void> {
    const { store, clock } = this.#ports;
    const now = clock.now();
    const [ended, changed] = [[...this.#ended], this.#changed];
    this.#changed = new Set();
    /** As they are once this is written. */
    const next = new Map<Run, Pick<Run, 'chargedUntil' | 'egressBytes'>>();
    const entries: LedgerEntry[] = [];
    for (const run of this.#runs.values()) {
      const hour = hourOf(now);
      if (hour <= run.chargedUntil) continue;
      entries.push(...this.#entriesOf(run, hour));
      next.set(run, { chargedUntil: hour, egressBytes: 0 });
    }
    for (const { run, at } of ended) entries.push(...this.#entriesOf(run, at));
    const kept = [...new Set([...changed, ...next.keys()])].filter((run) => this.#runs.get(run.incarnationId) === run);
    const runs = kept.map((run) => ({ ...run, ...next.get(run) }));
    const taken = new Map(kept.map((run) => [run, run.egressBytes]));
    try {
      entries.push(...(await this.#storageUntil(now)));
      await store.commit({ watchedUntil: now, entries, runs, ended: ended.map(({ run }) => run.incarnationId) });
    } catch (error) {
      for (const run of changed) this.#changed.add(run);
      throw error;
    }
    this.#watchedUntil = now;
    this.#ended = this.#ended.filter((each) => !ended.includes(each));
    for (const [run, { chargedUntil }] of next) {
      run.chargedUntil = chargedUntil;
      // More may have been sent meanwhile.
      run.egressBytes -= taken.get(run) ?? 0;
    }
  }

  /** Whole hours that have passed since the last tick. What was deleted within one is not there to be charged. */
  async #storageUntil(now: Date): Promise<LedgerEntry[]> {
    const { store, rates } = this.#ports;
    const first = hourOf(this.#watchedUntil ?? now);
    const end = hourOf(now);
    if (first >= end) return [];
    const stored = await store.listStored();
    const entries: LedgerEntry[] = [];
    for (let from = first; from < end; from = nextHour(from)) {
      const to = nextHour(from);
      const mibMs = new Map<AccountId, number>();
      for (const { accountId, bytes, since } of stored) {
        const ms = Math.max(0, to.getTime() - latest(since, from).getTime());
        mibMs.set(accountId, (mibMs.get(accountId) ?? 0) + Math.round((bytes * ms) / MIB));
      }
      for (const [accountId, used] of mibMs) {
        if (used === 0) continue;
        const key = `storage:${accountId}:${from.toISOString()}`;
        const what = { key, accountId, kind: 'snapshot_storage', resourceId: null, from, to, mibMs: used } as const;
        entries.push({ ...what, microDollars: -storageCost(rates, used), vcpuMs: 0, bytes: 0, note: null });
      }
    }
    return entries;
  }

  /** What is not charged yet of a run up to an instant, cut at every hour. */
  #entriesOf(run: Run, until: Date): LedgerEntry[] {
    const { rates } = this.#ports;
    const { incarnationId, sandboxId: resourceId, accountId, size, beganAt, egressBytes: bytes } = run;
    const entries: LedgerEntry[] = [];
    const cost = (at: Date): number => runCost(rates, size, at.getTime() - beganAt.getTime());
    const common = { accountId, resourceId, note: null };
    for (let from = run.chargedUntil; from < until; ) {
      const to = nextHour(from) < until ? nextHour(from) : until;
      const ms = to.getTime() - from.getTime();
      const used = { vcpuMs: size.vcpus * ms, mibMs: size.memoryMib * ms, bytes: 0 };
      const microDollars = cost(from) - cost(to);
      const key = `run:${incarnationId}:${from.getTime()}`;
      entries.push({ ...common, key, kind: 'vm_execution', from, to, microDollars, ...used });
      from = to;
    }
    if (bytes === 0) return entries;
    // Sent some time since the last piece; the hour in which that began has it.
    const from = run.chargedUntil;
    const to = nextHour(from) < until ? nextHour(from) : latest(from, until);
    const key = `egress:${incarnationId}:${from.getTime()}`;
    const none = { vcpuMs: 0, mibMs: 0 };
    const microDollars = -egressCost(rates, bytes);
    return [...entries, { ...common, key, kind: 'egress', from, to, microDollars, ...none, bytes }];
  }

  #begin(record: SandboxRecord, at: Date): void {
    const { incarnationId, id: sandboxId, accountId, size } = record;
    if (incarnationId === null || this.#runs.has(incarnationId)) return;
    this.#add({ incarnationId, sandboxId, accountId, size, beganAt: at, chargedUntil: at, egressBytes: 0 });
  }

  #add(run: Run): void {
    this.#runs.set(run.incarnationId, run);
    this.#bySandbox.set(run.sandboxId, run);
    this.#changed.add(run);
  }
}

const MIB = 1_024 ** 2;
const latest = (one: Date, other: Date): Date => (one > other ? one : other);

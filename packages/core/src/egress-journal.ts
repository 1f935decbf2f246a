/**
 * Between the gateway, which must never wait, and the log, which is a database: gathers what guests do for a moment, writes it in
 * batches, and tells followers. What a guest can make it hold, and make the database write, is bounded (`egress-batch.ts`).
 */
import type { Clock } from './clock.ts';
import { EgressBatch } from './egress-batch.ts';
import type { EgressLog, EgressRecord } from './egress-log.ts';
import type { SandboxId } from './ids.ts';
import type { LifecycleLog } from './log.ts';

const WINDOW_MS = 250;
/** About a thousand a second, more than an honest program does. */
const MAX_ROWS_PER_SANDBOX = 256;
/** What the database writes in some tens of milliseconds, however many guests are busy. */
const MAX_ROWS = 2_048;
const MAX_OPENED = 1_000;

export interface EgressFollower {
  /** Connections that began since the last call, and how many more had no room to wait. */
  takeOpened(): { readonly opened: readonly EgressRecord[]; readonly missed: number };
  /** Resolves when there is something new to take, or to read in the log since the last call; with false when there will be nothing more. */
  news(): Promise<boolean>;
  close(): void;
}

export class EgressJournal {
  readonly #log: EgressLog;
  readonly #clock: Clock;
  readonly #warnings: Pick<LifecycleLog, 'warn'>;
  readonly #followers = new Map<SandboxId, Set<Follower>>();
  #batches = new Map<SandboxId, EgressBatch>();
  #rowCount = 0;
  #cancelTimer: (() => void) | undefined;
  #writing: Promise<void> = Promise.resolve();

  constructor(log: EgressLog, clock: Clock, warnings: Pick<LifecycleLog, 'warn'>) {
    this.#log = log;
    this.#clock = clock;
    this.#warnings = warnings;
  }

  /** Never throws, never waits. */
  record(sandboxId: SandboxId, record: EgressRecord): void {
    if (record.outcome === 'open') {
      for (const follower of this.#followers.get(sandboxId) ?? []) follower.opened(record);
      return;
    }
    const batch = this.#batchOf(sandboxId);
    const before = batch.rowCount;
    batch.add(record, before < MAX_ROWS_PER_SANDBOX && this.#rowCount < MAX_ROWS);
    this.#rowCount += batch.rowCount - before;
    this.#cancelTimer ??= this.#clock.schedule(new Date(this.#clock.now().getTime() + WINDOW_MS), () => {
      void this.flush();
    });
  }

  /** News of one sandbox from here on. The caller closes it. */
  follow(sandboxId: SandboxId): EgressFollower {
    const followers = this.#followers.get(sandboxId) ?? new Set();
    this.#followers.set(sandboxId, followers);
    const follower = new Follower(() => {
      followers.delete(follower);
      if (followers.size === 0 && this.#followers.get(sandboxId) === followers) this.#followers.delete(sandboxId);
    });
    followers.add(follower);
    return follower;
  }

  /** Resolves when what was recorded so far is written, or cannot be. Never rejects. */
  flush(): Promise<void> {
    this.#writing = this.#writing.then(() => this.#write());
    return this.#writing;
  }

  endFollowers(): void {
    for (const followers of this.#followers.values()) for (const follower of followers) follower.close();
  }

  /** Writes what is there, and ends all followers. */
  async stop(): Promise<void> {
    this.endFollowers();
    await this.flush();
    this.#cancelTimer?.();
  }

  async #write(): Promise<void> {
    const batches = this.#batches;
    this.#batches = new Map();
    this.#rowCount = 0;
    this.#cancelTimer?.();
    this.#cancelTimer = undefined;
    let failure: { readonly err: unknown; sandboxes: number } | undefined;
    for (const [sandboxId, { entries }] of batches) {
      try {
        await this.#log.append(sandboxId, entries);
        for (const follower of this.#followers.get(sandboxId) ?? []) follower.wake();
      } catch (err) {
        failure ??= { err, sandboxes: 0 };
        failure.sandboxes++;
        // They are counted in the next row of the sandbox that can be written.
        const batch = this.#batchOf(sandboxId);
        for (const entry of entries) batch.addUnlisted(entry);
      }
    }
    if (failure !== undefined) this.#warnings.warn(failure, 'the egress log was not written');
  }

  #batchOf(sandboxId: SandboxId): EgressBatch {
    const present = this.#batches.get(sandboxId);
    if (present !== undefined) return present;
    const batch = new EgressBatch();
    this.#batches.set(sandboxId, batch);
    return batch;
  }
}

class Follower implements EgressFollower {
  readonly #onClose: () => void;
  #opened: EgressRecord[] = [];
  #missed = 0;
  #isFresh = false;
  #isClosed = false;
  #resolve: (() => void) | undefined;

  constructor(onClose: () => void) {
    this.#onClose = onClose;
  }

  opened(record: EgressRecord): void {
    if (this.#opened.length < MAX_OPENED) this.#opened.push(record);
    else this.#missed++;
    this.wake();
  }

  wake(): void {
    this.#isFresh = true;
    this.#resolve?.();
  }

  takeOpened(): { opened: readonly EgressRecord[]; missed: number } {
    const taken = { opened: this.#opened, missed: this.#missed };
    this.#opened = [];
    this.#missed = 0;
    return taken;
  }

  async news(): Promise<boolean> {
    if (!this.#isFresh && !this.#isClosed)
      await new Promise<void>((resolve) => {
        this.#resolve = resolve;
      });
    this.#resolve = undefined;
    this.#isFresh = false;
    return !this.#isClosed;
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#onClose();
    this.wake();
  }
}

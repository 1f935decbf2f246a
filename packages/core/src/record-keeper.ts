/** The record of one sandbox, in memory and in the store: the one place that publishes what became of it. */
import { InstaVMError } from '@instavm/wire';
import type { LifecycleLog } from './log.ts';
import type { UsageObserver } from './metering/meter.ts';
import type { SandboxChange, SandboxRecords } from './records.ts';
import type { SandboxRecord } from './sandbox.ts';
import { METERED_STATES, TRANSITIONS } from './states.ts';

export type KeeperPorts = {
  readonly records: SandboxRecords;
  readonly log: LifecycleLog;
  readonly usage: UsageObserver;
};

export class RecordKeeper {
  readonly #records: SandboxRecords;
  readonly #log: LifecycleLog;
  readonly #usage: UsageObserver;
  #record: SandboxRecord;
  #isStored: boolean;
  readonly #waiting = new Set<() => void>();
  /** What became true while the store could not be written; goes with the next change. */
  #unsaved: SandboxChange = {};

  /** @param isStored false for a new sandbox, whose record is inserted with its first change */
  constructor(ports: KeeperPorts, record: SandboxRecord, isStored: boolean) {
    this.#records = ports.records;
    this.#log = ports.log;
    this.#usage = ports.usage;
    this.#record = record;
    this.#isStored = isStored;
  }

  get record(): SandboxRecord {
    return this.#record;
  }

  /** Whether the stored record says the same. */
  get isStored(): boolean {
    return this.#isStored && Object.keys(this.#unsaved).length === 0;
  }

  /** Resolves with the next change of its state, or when `signal` is aborted. */
  nextState(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = (): void => {
        this.#waiting.delete(done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      this.#waiting.add(done);
      signal.addEventListener('abort', done);
      if (signal.aborted) done();
    });
  }

  /** Writes first, then is so: an intent that was not kept is not acted on. @throws store_unavailable, conflict; nothing has changed then */
  async update(change: SandboxChange): Promise<void> {
    this.#check(change);
    const before = this.#record;
    this.#record = { ...before, ...change };
    try {
      await this.#write(before.epoch, change);
    } catch (error) {
      this.#record = before;
      throw error;
    }
    this.#tell(before.state);
  }

  /** For what has happened already: it is so, also when it cannot be written now. */
  async settle(change: SandboxChange): Promise<void> {
    this.#check(change);
    const { epoch, state } = this.#record;
    this.#record = { ...this.#record, ...change };
    try {
      await this.#write(epoch, change);
    } catch (error) {
      this.#unsaved = { ...this.#unsaved, ...change };
      this.#log.warn({ sandboxId: this.#record.id, err: error }, 'a state could not be recorded; kept for later');
    }
    this.#tell(state);
  }

  #tell(before: SandboxRecord['state']): void {
    const { state } = this.#record;
    if (state === before) return;
    const [did, does] = [METERED_STATES.includes(before), METERED_STATES.includes(state)];
    if (does && !did) this.#usage.began(this.#record);
    if (did && !does) this.#usage.ended(this.#record);
    for (const done of [...this.#waiting]) done();
  }

  async #write(epoch: number, change: SandboxChange): Promise<void> {
    if (!this.#isStored) await this.#records.insert(this.#record);
    else if (!(await this.#records.update(this.#record.id, epoch, { ...this.#unsaved, ...change }))) {
      throw new InstaVMError('conflict', 'another daemon owns this sandbox now');
    }
    this.#isStored = true;
    this.#unsaved = {};
  }

  #check({ state: next }: SandboxChange): void {
    const { state } = this.#record;
    if (next === undefined || next === state || TRANSITIONS[state].includes(next)) return;
    throw new InstaVMError('internal', `a sandbox cannot go from ${state} to ${next}`);
  }
}

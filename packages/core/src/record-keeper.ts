/** The record of one sandbox, in memory and in the store: the one place that publishes what became of it. */
import { InstaVMError } from '@instavm/wire';
import type { ActorSource, NewAuditEvent } from './audit/event.ts';
import { type SandboxOrigin, sandboxEvents } from './audit/sandbox-events.ts';
import type { Clock } from './clock.ts';
import type { LifecycleLog } from './log.ts';
import type { UsageObserver } from './metering/meter.ts';
import type { SandboxChange, SandboxRecords } from './records.ts';
import type { SandboxRecord } from './sandbox.ts';
import { METERED_STATES, TRANSITIONS } from './states.ts';

export type KeeperPorts = {
  readonly records: SandboxRecords;
  readonly log: LifecycleLog;
  readonly usage: UsageObserver;
  readonly clock: Clock;
  /** Whom the audit trail names. */
  readonly actor: ActorSource;
};

/** What a change means that the record does not say. */
export type ChangeMeaning = { readonly isWoken?: boolean };

export class RecordKeeper {
  readonly #ports: KeeperPorts;
  #record: SandboxRecord;
  /** Of one that is not stored yet. */
  #origin: SandboxOrigin | undefined;
  readonly #waiting = new Set<() => void>();
  /** What became true while the store could not be written; goes with the next change. */
  #unsaved: SandboxChange = {};
  #unsavedEvents: readonly NewAuditEvent[] = [];

  /** @param origin given for a new sandbox, whose record is inserted with its first change */
  constructor(ports: KeeperPorts, record: SandboxRecord, origin: SandboxOrigin | undefined) {
    this.#ports = ports;
    this.#record = record;
    this.#origin = origin;
  }

  get record(): SandboxRecord {
    return this.#record;
  }

  /** Whether the stored record says the same. */
  get isStored(): boolean {
    return this.#origin === undefined && Object.keys(this.#unsaved).length === 0;
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
  async update(change: SandboxChange, meaning: ChangeMeaning = {}): Promise<void> {
    this.#check(change);
    const before = this.#record;
    this.#record = { ...before, ...change };
    try {
      await this.#write(before.epoch, change, this.#eventsOf(before, change, meaning));
    } catch (error) {
      this.#record = before;
      throw error;
    }
    this.#tell(before.state);
  }

  /** For what has happened already: it is so, also when it cannot be written now. */
  async settle(change: SandboxChange): Promise<void> {
    this.#check(change);
    const before = this.#record;
    this.#record = { ...before, ...change };
    const events = this.#eventsOf(before, change, {});
    try {
      await this.#write(before.epoch, change, events);
    } catch (error) {
      this.#unsaved = { ...this.#unsaved, ...change };
      this.#unsavedEvents = [...this.#unsavedEvents, ...events];
      this.#ports.log.warn({ sandboxId: this.#record.id, err: error }, 'a state could not be recorded; kept for later');
    }
    this.#tell(before.state);
  }

  #tell(before: SandboxRecord['state']): void {
    const { state } = this.#record;
    if (state === before) return;
    const [did, does] = [METERED_STATES.includes(before), METERED_STATES.includes(state)];
    if (does && !did) this.#ports.usage.began(this.#record);
    if (did && !does) this.#ports.usage.ended(this.#record);
    for (const done of [...this.#waiting]) done();
  }

  #eventsOf(before: SandboxRecord, change: SandboxChange, { isWoken = false }: ChangeMeaning): NewAuditEvent[] {
    const { actor, clock } = this.#ports;
    const by = { actor: actor(), at: clock.now() };
    return sandboxEvents({ before, after: this.#record, change, origin: this.#origin, isWoken, ...by });
  }

  async #write(epoch: number, change: SandboxChange, events: readonly NewAuditEvent[]): Promise<void> {
    const { records } = this.#ports;
    if (this.#origin !== undefined) await records.insert(this.#record, events);
    else {
      const all = [...this.#unsavedEvents, ...events];
      if (!(await records.update(this.#record.id, epoch, { ...this.#unsaved, ...change }, all)))
        throw new InstaVMError('conflict', 'another daemon owns this sandbox now');
    }
    this.#origin = undefined;
    this.#unsaved = {};
    this.#unsavedEvents = [];
  }

  #check({ state: next }: SandboxChange): void {
    const { state } = this.#record;
    if (next === undefined || next === state || TRANSITIONS[state].includes(next)) return;
    throw new InstaVMError('internal', `a sandbox cannot go from ${state} to ${next}`);
  }
}

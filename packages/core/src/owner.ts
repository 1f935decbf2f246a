/**
 * The one owner of a sandbox: every change goes through it, in order, as a request that the policy of `states.ts` answers. How it comes
 * to run and stops, how a microVM is kept, and how its record is published are neighbours (`bring-up.ts`, `put-down.ts`, `running.ts`,
 * `record-keeper.ts`).
 */
import { InstaVMError } from '@instavm/wire';
import type { SandboxOrigin } from './audit/sandbox-events.ts';
import { adopt, create, resume } from './bring-up.ts';
import type { GuestLink } from './guest.ts';
import type { FilesId } from './ids.ts';
import type { Incarnation } from './incarnation.ts';
import {
  absence,
  failure,
  identityOf,
  idsOf,
  type OwnerParts,
  type OwnerPorts,
  PERSONALIZE_DEADLINE_MS,
} from './parts.ts';
import { end, save, suspend } from './put-down.ts';
import { RecordKeeper } from './record-keeper.ts';
import type { SandboxChange } from './records.ts';
import { planRecovery } from './recovery.ts';
import { Running } from './running.ts';
import type { SandboxRecord } from './sandbox.ts';
import { SerialQueue } from './serial-queue.ts';
import { decide, type EndCause, type SandboxRequest } from './states.ts';
import type { TimedStep } from './telemetry.ts';
import type { MicroVm, VmSnapshot } from './vmm.ts';

/** When an expired sandbox cannot be suspended: how soon, and how often, it is tried again before it is ended. */
const EXPIRY_RETRY_MS = 30_000;
const EXPIRY_ATTEMPTS = 5;

export type OwnerDependencies<Guest extends GuestLink> = OwnerPorts<Guest> & {
  /** Takes the snapshot of a sandbox that is about to end. */
  readonly keepAtEnd: (owner: SandboxOwner<Guest>, name: string) => Promise<void>;
};

/** Whether a suspended or lost sandbox is brought back for a guest that is asked for. */
export type Wake =
  /** No. */
  | 'never'
  /** A suspended one that allows it. */
  | 'suspended'
  /** That, and one that lost its microVM gets a fresh one, unless it was ended by request. */
  | 'always';

/** What is kept about a sandbox, and may change at any time. */
type Remembered = Pick<SandboxChange, 'egress' | 'metadata' | 'lifecycle' | 'env'>;

export type Saved = { readonly filesId: FilesId; readonly state: VmSnapshot };

export class SandboxOwner<Guest extends GuestLink> {
  readonly #deps: OwnerDependencies<Guest>;
  readonly #queue = new SerialQueue();
  readonly #parts: OwnerParts<Guest>;
  #expiryAttempts = 0;

  /** @param origin given for a new sandbox, whose record is inserted with its first incarnation */
  constructor(deps: OwnerDependencies<Guest>, record: SandboxRecord, origin?: SandboxOrigin) {
    this.#deps = deps;
    const running = new Running<Guest>(deps, {
      lost: (incarnation, reason, diagnostics) => this.#lost(incarnation, reason, diagnostics),
      expired: () => this.#expired(),
      idle: () => this.#idle(),
    });
    const keeper = new RecordKeeper(deps, record, origin);
    this.#parts = { ports: deps, keeper, running };
  }

  get record(): SandboxRecord {
    return this.#parts.keeper.record;
  }

  /** Whether a microVM of this sandbox exists. */
  get isAlive(): boolean {
    return this.#parts.running.incarnation !== undefined;
  }

  /** Whether nothing is under way and nothing is held, so that the record is all there is. */
  get isForgettable(): boolean {
    const { keeper, running } = this.#parts;
    return keeper.isStored && !this.isAlive && this.#queue.isIdle && !running.isUsed;
  }

  /** Makes sure that it runs: resumed if it was suspended, in a fresh microVM if it has ended. @throws as `create`, `resume` */
  start(): Promise<void> {
    return this.#queue.run(() => this.#bringUp('start'));
  }

  /** The first start of a sandbox that is made from a snapshot. @throws as `create`; snapshot_damaged */
  startFrom(files: FilesId): Promise<void> {
    return this.#queue.run(async () => {
      if (!this.#request('start')) return;
      await this.#deps.states
        .use(files, (state) => create(this.#parts, state))
        .catch((error: unknown) => {
          if (this.record.state !== 'running') throw error;
          // What failed after it ran is only the removal of files, which the next start does.
          this.#warning('releasing a saved state')(error);
        });
    });
  }

  /** @throws invalid_state for what is not suspended; as `bring-up.ts` says */
  resume(): Promise<void> {
    return this.#queue.run(() => this.#bringUp('resume'));
  }

  /** Saves memory, devices and disk, and gives the memory back. @throws invalid_state, snapshot_failed, capacity_unavailable */
  suspend(reason: string): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('suspend')) await this.#timed('sandbox.suspend', () => suspend(this.#parts, reason));
    });
  }

  /**
   * Saves what it is while it runs on, or hands out the saved state of one that is suspended.
   * @param files where the state of a running one goes
   * @param keep runs before anything else may happen to the sandbox
   * @throws invalid_state, snapshot_failed, capacity_unavailable
   */
  snapshot(files: FilesId, keep: (saved: Saved, record: SandboxRecord) => Promise<void>): Promise<void> {
    return this.#queue.run(async () => {
      this.#request('snapshot');
      const { savedIn } = this.record;
      if (!this.isAlive && savedIn !== null)
        return this.#deps.states.use(savedIn, (state) => keep({ filesId: savedIn, state }, this.record));
      const state = await this.#timed('sandbox.snapshot', () => save(this.#parts, files, 'continue'));
      await keep({ filesId: files, state }, this.record);
    });
  }

  /** Says at once what `snapshot` would say now, unless something is under way. @throws invalid_state */
  checkSnapshot(): void {
    if (this.#queue.isIdle) this.#request('snapshot');
  }

  /** Ends the sandbox, suspended or not; success when it has ended already. @throws teardown_incomplete */
  end(reason: string, cause: EndCause): Promise<void> {
    return this.#queue.run(async () => {
      // A lease that ran out while others asked for an end and a start is not that of what runs now.
      if (cause === 'expiry' && !this.#isExpired) return;
      if (this.#request('end')) await this.#timed('sandbox.end', () => end(this.#parts, reason, cause));
    });
  }

  /**
   * The guest of the running incarnation, after waiting for what is under way.
   * @throws invalid_state, sandbox_suspended, lease_expired; as `start` when it may wake
   */
  async guest(wake: Wake = 'never'): Promise<Guest> {
    for (;;) {
      const present = this.#parts.running.incarnation;
      const isRunning = this.record.state === 'running' && present !== undefined && !present.isLost;
      // Behind everything that is under way: news of a loss may be.
      if (wake !== 'never' || !isRunning)
        await this.#queue.run(async () => {
          if (wake !== 'never' && this.record.state !== 'running')
            await this.#bringUp(wake === 'always' ? 'wake' : 'rouse');
        });
      const { incarnation } = this.#parts.running;
      if (incarnation === undefined) throw absence(this.record);
      const guest = await incarnation.guest();
      // It may have been lost while its channel was opened again.
      if (!incarnation.isLost) return guest;
    }
  }

  /** Resolves with the next change of its state, or when `signal` is aborted: for who waits for it without waking it. */
  nextState(signal: AbortSignal): Promise<void> {
    return this.#parts.keeper.nextState(signal);
  }

  /** While held it counts as used, and is not suspended as idle. @returns how to let go */
  hold(): () => void {
    return this.#parts.running.hold();
  }

  /**
   * Changes what is kept about the sandbox without changing its state. A new environment is handed to the guest too, and a new egress policy holds at once.
   * @param changeOf asked behind everything that is under way, so that of two changes of one field at once neither is lost. What it throws is thrown
   */
  remember(changeOf: (present: SandboxRecord) => Remembered): Promise<void> {
    return this.#queue.run(async () => {
      const { keeper, running } = this.#parts;
      const change = changeOf(this.record);
      await keeper.update(change);
      if (change.egress !== undefined) running.incarnation?.network.setPolicy(change.egress);
      if (change.lifecycle !== undefined) running.watchIdleness(change.lifecycle.idleSuspendSeconds);
      if (change.env === undefined) return;
      const guest = await running.incarnation?.guest();
      await guest?.personalize(identityOf(this.record), PERSONALIZE_DEADLINE_MS);
    });
  }

  /** With the daemon: leaves what runs to the next one, or ends it. What is suspended stays so. This owner is of no use afterwards. */
  shutDown(fate: 'keep' | 'end'): Promise<void> {
    return this.#queue.run(async () => {
      if (fate === 'keep') this.#parts.running.end()?.leave();
      else if (this.record.state !== 'suspended' && this.#request('end'))
        await end(this.#parts, 'the daemon stopped', 'daemon');
    });
  }

  /** Finishes or undoes what an earlier daemon left half-made. @param survivor its microVM, proven to be it */
  recover(survivor: MicroVm | undefined): Promise<void> {
    return this.#queue.run(async () => {
      const { keeper, ports } = this.#parts;
      const { savedIn, state } = this.record;
      const saved = savedIn === null ? undefined : await ports.states.find(savedIn);
      const plan = planRecovery(state, survivor !== undefined, saved !== undefined);
      ports.log.warn({ ...idsOf(this.record), state, plan }, 'recovering a sandbox of an earlier daemon');
      if (plan === 'adopt' && survivor !== undefined) return adopt(this.#parts, survivor);
      // What does not die now is reaped with the leftovers.
      await survivor?.kill().catch(this.#warning('ending what an earlier daemon left'));
      const lost = failure('its microVM ended while no daemon ran', ports.clock.now());
      if (plan === 'suspended')
        await keeper.update({ state: 'suspended', expiresAt: null, savedBytes: saved?.storedBytes ?? null });
      else if (plan === 'undo_start')
        await keeper.update({ ...lost, stateReason: 'the daemon ended while it was started', endCause: 'daemon' });
      else if (plan === 'finish_end') await keeper.update({ ...lost, ...ENDED, endCause: this.record.endCause });
      else await keeper.update(lost);
    });
  }

  /** @returns whether there is work to do. @throws invalid_state, sandbox_suspended */
  #request(request: SandboxRequest): boolean {
    const { id, state, endCause, lifecycle } = this.record;
    const verdict = decide({ state, endCause, autoResume: lifecycle.autoResume }, request);
    this.#deps.log.info({ sandboxId: id, state, request, verdict: verdict.kind }, 'request');
    if (verdict.kind !== 'deny') return verdict.kind === 'accept';
    if (request === 'rouse') throw absence(this.record);
    const code = state === 'suspended' ? 'sandbox_suspended' : 'invalid_state';
    throw new InstaVMError(code, verdict.reason, { details: { state } });
  }

  async #bringUp(request: 'start' | 'wake' | 'rouse' | 'resume'): Promise<void> {
    if (!this.#request(request)) return;
    const { savedIn, state } = this.record;
    this.#expiryAttempts = 0;
    if (state === 'suspended' && savedIn !== null)
      await resume(this.#parts, savedIn, request === 'wake' || request === 'rouse');
    else await create(this.#parts, undefined);
  }

  get #isExpired(): boolean {
    const { expiresAt, state } = this.record;
    // What was left to the next daemon ends by that one's timers.
    return state === 'running' && this.isAlive && expiresAt !== null && expiresAt <= this.#deps.clock.now();
  }

  #expired(): void {
    const { running, ports, keeper } = this.#parts;
    const { state, expiresAt } = this.record;
    // Timers count time on their own: the clock was set back meanwhile.
    if (state === 'running' && expiresAt !== null && expiresAt > ports.clock.now()) {
      running.expireAt(expiresAt);
      return;
    }
    const expire = async (): Promise<void> => {
      // What is under way may end it, or leave it as it was.
      await this.#queue.run(async () => {});
      const { autoSuspend, snapshotOnExpiry } = this.record.lifecycle;
      if (!autoSuspend || this.#expiryAttempts++ >= EXPIRY_ATTEMPTS) {
        // Nothing is worth a sandbox that never ends: when the snapshot fails, its own record says why.
        if (snapshotOnExpiry !== null && this.#isExpired)
          await this.#deps.keepAtEnd(this, snapshotOnExpiry).catch(this.#warning('no snapshot at the end'));
        return this.end('its lifetime ran out', 'expiry');
      }
      await this.#queue.run(async () => {
        if (this.#isExpired) await this.#timed('sandbox.suspend', () => suspend(this.#parts, 'its lifetime ran out'));
      });
    };
    expire().catch((error: unknown) => {
      this.#warning('the end of a lease')(error);
      if (keeper.record.state === 'running') running.expireAt(new Date(ports.clock.now().getTime() + EXPIRY_RETRY_MS));
    });
  }

  #idle(): void {
    const { running } = this.#parts;
    this.#queue
      .run(async () => {
        if (this.record.state === 'running' && !running.isUsed)
          await this.#timed('sandbox.suspend', () => suspend(this.#parts, 'nobody used it'));
      })
      .catch((error: unknown) => {
        this.#warning('suspending an idle sandbox')(error);
        // It is as idle as before, and tried again.
        if (this.record.state === 'running') running.watchIdleness(this.record.lifecycle.idleSuspendSeconds);
      });
  }

  /** Late news of an incarnation that is no longer the present one changes nothing. */
  #lost(incarnation: Incarnation<Guest>, reason: string, diagnostics: string): void {
    const { keeper, running, ports } = this.#parts;
    this.#queue
      .run(async () => {
        if (running.incarnation !== incarnation) return;
        ports.log.warn({ ...idsOf(this.record), reason, diagnostics }, 'sandbox lost');
        running.end();
        await incarnation.release().finally(() => keeper.settle(failure(reason, ports.clock.now())));
      })
      .catch(this.#warning('cleaning up a lost sandbox'));
  }

  #timed<T>(step: TimedStep, work: () => Promise<T>): Promise<T> {
    return this.#deps.telemetry.timed(step, { sandboxId: this.record.id }, work);
  }

  #warning(message: string): (error: unknown) => void {
    return (error) => this.#deps.log.warn({ sandboxId: this.record.id, err: error }, message);
  }
}

const ENDED = { state: 'stopped', stateReason: 'the daemon ended while it was being ended' } as const;

/**
 * The one owner of a sandbox: every change goes through it, in order. It makes incarnations (restore, attach, personalize),
 * keeps their lease, notices their death, and ends them.
 */
import { InstaVMError } from '@instavm/wire';
import { CleanupStack } from './cleanup.ts';
import type { Clock } from './clock.ts';
import type { GuestConnector, GuestLink } from './guest.ts';
import { type AccountId, type IncarnationId, newIncarnationId } from './ids.ts';
import type { SandboxChange, SandboxRecords } from './records.ts';
import { decide, type EndCause, type SandboxRecord, type SandboxRequest, TRANSITIONS } from './sandbox.ts';
import { SerialQueue } from './serial-queue.ts';
import type { Templates } from './templates.ts';
import type { MicroVm, Vmm } from './vmm.ts';

/** A channel that drops again and again belongs to a broken guest, not to a slip of the host. */
const MAX_REATTACHMENTS = 16;
/** How long the VMM's own end is awaited when its channel dropped: it says more about the reason. */
const EXIT_GRACE_MS = 1_000;
/** SYNC and Personalize of a clone: tens of milliseconds; a busy emulating host may need seconds. */
const ATTACH_DEADLINE_MS = 30_000;

export type OwnerDependencies<Guest extends GuestLink> = {
  readonly vmm: Vmm;
  readonly templates: Templates;
  readonly connector: GuestConnector<Guest>;
  readonly records: SandboxRecords;
  readonly clock: Clock;
  readonly log: LifecycleLog;
  /** Asked before every incarnation, in the same turn in which the state changes. @throws shutting_down, quota_exceeded */
  readonly admit: (accountId: AccountId) => void;
};

export interface LifecycleLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

type Incarnation<Guest> = {
  readonly id: IncarnationId;
  readonly epoch: number;
  readonly vm: MicroVm;
  guest: Guest;
  /** Pending while the control channel is opened again. */
  reattaching: Promise<void> | undefined;
  reattachments: number;
  readonly cleanup: CleanupStack;
};

export class SandboxOwner<Guest extends GuestLink> {
  readonly #deps: OwnerDependencies<Guest>;
  readonly #queue = new SerialQueue();
  #record: SandboxRecord;
  #isStored: boolean;
  #incarnation: Incarnation<Guest> | undefined;

  /** @param isStored false for a new sandbox, whose record is inserted with its first incarnation */
  constructor(deps: OwnerDependencies<Guest>, record: SandboxRecord, isStored: boolean) {
    this.#deps = deps;
    this.#record = record;
    this.#isStored = isStored;
  }

  get record(): SandboxRecord {
    return this.#record;
  }

  /** Whether a microVM of this sandbox exists. */
  get isAlive(): boolean {
    return this.#incarnation !== undefined;
  }

  /** Whether nothing is under way and nothing is held, so that the record is all there is. */
  get isForgettable(): boolean {
    return this.#isStored && this.#incarnation === undefined && this.#queue.isIdle;
  }

  /** Makes sure that the sandbox runs. @throws invalid_state, boot_failed, capacity_unavailable, guest_unresponsive */
  start(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('start')) await this.#makeIncarnation();
    });
  }

  /** Ends the sandbox; success when it has ended already. @throws teardown_incomplete */
  end(reason: string, cause: EndCause): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('end')) await this.#endIncarnation(reason, cause);
    });
  }

  /** The guest of the running incarnation. Waits for one that is being made, and makes none. @throws invalid_state, lease_expired */
  async guest(): Promise<Guest> {
    if (this.#record.state === 'running') await this.#incarnation?.reattaching;
    else await this.#queue.run(async () => {});
    if (this.#incarnation !== undefined) return this.#incarnation.guest;
    const { state, stateReason, endCause } = this.#record;
    const sentence = `the sandbox is ${state}${stateReason === null ? '' : `: ${stateReason}`}`;
    throw new InstaVMError(endCause === 'expiry' ? 'lease_expired' : 'invalid_state', sentence, { details: { state } });
  }

  /** Like `guest`, but a sandbox that lost its microVM gets a fresh one, unless it was ended by request. @throws as `start` */
  async wokenGuest(): Promise<Guest> {
    await this.#incarnation?.reattaching;
    // Behind everything that is under way: news of a loss may be.
    await this.#queue.run(async () => {
      if (this.#record.state !== 'running' && this.#request('wake')) await this.#makeIncarnation();
    });
    return this.guest();
  }

  /** Changes what is kept about the sandbox without changing its state. */
  remember(change: Pick<SandboxChange, 'egress' | 'metadata'>): Promise<void> {
    return this.#queue.run(() => this.#update(change));
  }

  /** @returns whether there is work to do. @throws invalid_state */
  #request(request: SandboxRequest): boolean {
    const verdict = decide(this.#record, request);
    this.#deps.log.info(
      { sandboxId: this.#record.id, state: this.#record.state, request, verdict: verdict.kind },
      'request',
    );
    if (verdict.kind === 'deny') {
      throw new InstaVMError('invalid_state', verdict.reason, { details: { state: this.#record.state } });
    }
    return verdict.kind === 'accept';
  }

  async #update(change: SandboxChange): Promise<void> {
    const { id, epoch, state } = this.#record;
    const next = change.state;
    if (next !== undefined && next !== state && !TRANSITIONS[state].includes(next)) {
      throw new InstaVMError('internal', `a sandbox cannot go from ${state} to ${next}`);
    }
    const before = this.#record;
    this.#record = { ...before, ...change };
    try {
      if (!this.#isStored) await this.#deps.records.insert(this.#record);
      else if (!(await this.#deps.records.update(id, epoch, change))) {
        throw new InstaVMError('conflict', 'another daemon owns this sandbox now');
      }
      this.#isStored = true;
    } catch (error) {
      this.#record = before;
      throw error;
    }
  }

  async #makeIncarnation(): Promise<void> {
    const { vmm, templates, connector, clock, log, admit } = this.#deps;
    const { id: sandboxId, size, ttlSeconds, accountId } = this.#record;
    admit(accountId);
    const id = newIncarnationId();
    const epoch = this.#record.epoch + 1;
    const startedAt = clock.now();
    const lease = (): Date => new Date(clock.now().getTime() + ttlSeconds * 1000);
    const begun = { stateReason: null, endCause: null, incarnationId: id, epoch, startedAt, endedAt: null };
    await this.#update({ ...begun, state: 'creating', expiresAt: lease() });
    const cleanup = new CleanupStack();
    try {
      const vm = await vmm.restore(await templates.get(size), id);
      cleanup.push(() => vm.kill());
      const guest = await connector.attach(await vm.connect('control'), ATTACH_DEADLINE_MS);
      cleanup.push(() => guest.close());
      await guest.personalize(this.#identity(), ATTACH_DEADLINE_MS);
      const incarnation = { id, epoch, vm, guest, reattaching: undefined, reattachments: 0, cleanup };
      this.#incarnation = incarnation;
      const expiresAt = lease();
      cleanup.push(clock.schedule(expiresAt, () => this.#expire(incarnation)));
      vm.exited.then((exit) => {
        if (!exit.requested)
          this.#died(incarnation, `the microVM ended by itself (${exit.signal ?? exit.code})`, exit.diagnostics);
      });
      this.#keepAttached(incarnation);
      await this.#update({ state: 'running', expiresAt });
      log.info({ sandboxId, incarnationId: id, ms: clock.now().getTime() - startedAt.getTime() }, 'sandbox running');
    } catch (error) {
      this.#incarnation = undefined;
      await cleanup
        .run()
        .catch((cause: unknown) => log.warn({ sandboxId, err: cause }, 'clean-up after a failed start'));
      const reason = error instanceof InstaVMError ? error.message : 'the microVM could not be started';
      await this.#update(this.#failure(reason));
      throw error;
    }
  }

  #identity() {
    const hex = this.#record.id.replaceAll('-', '');
    // machine-id(5) wants a value that is stable for the machine and no secret; the sandbox id is both.
    return { hostname: `sandbox-${hex.slice(0, 12)}`, machineIdHex: hex, env: this.#record.env };
  }

  /** A control stream that drops while the microVM lives is opened again; only when that fails is the sandbox lost. */
  #keepAttached(incarnation: Incarnation<Guest>): void {
    incarnation.guest.closed.then(() => {
      if (this.#incarnation !== incarnation) return;
      incarnation.reattaching = this.#reattach(incarnation).finally(() => {
        incarnation.reattaching = undefined;
      });
    });
  }

  /** Never rejects. */
  async #reattach(incarnation: Incarnation<Guest>): Promise<void> {
    const { log, connector, clock } = this.#deps;
    try {
      if (++incarnation.reattachments > MAX_REATTACHMENTS) throw new Error('the control channel dropped too often');
      log.warn({ sandboxId: this.#record.id }, 'the control channel dropped; attaching again');
      const guest = await connector.attach(await incarnation.vm.connect('control'), ATTACH_DEADLINE_MS);
      if (this.#incarnation !== incarnation) return guest.close();
      incarnation.guest = guest;
      incarnation.cleanup.push(() => guest.close());
      this.#keepAttached(incarnation);
    } catch (error) {
      const grace = new Promise<void>((resolve) => {
        clock.schedule(new Date(clock.now().getTime() + EXIT_GRACE_MS), resolve);
      });
      await Promise.race([incarnation.vm.exited, grace]);
      this.#died(incarnation, 'the guest agent no longer answers', String(error));
    }
  }

  #expire(incarnation: Incarnation<Guest>): void {
    if (this.#incarnation !== incarnation) return;
    this.end('its lifetime ran out', 'expiry').catch((error: unknown) =>
      this.#deps.log.warn({ sandboxId: this.#record.id, err: error }, 'ending an expired sandbox'),
    );
  }

  /** Late news of an incarnation that is no longer the present one changes nothing. */
  #died(incarnation: Incarnation<Guest>, reason: string, diagnostics: string): void {
    this.#queue
      .run(async () => {
        if (this.#incarnation !== incarnation) return;
        this.#deps.log.warn({ sandboxId: this.#record.id, reason, diagnostics }, 'sandbox lost');
        this.#incarnation = undefined;
        await incarnation.cleanup.run().finally(() => this.#update(this.#failure(reason)));
      })
      .catch((error: unknown) =>
        this.#deps.log.warn({ sandboxId: this.#record.id, err: error }, 'cleaning up a lost sandbox'),
      );
  }

  #failure(stateReason: string): SandboxChange {
    return { state: 'failed', stateReason, endCause: 'loss', endedAt: this.#deps.clock.now(), expiresAt: null };
  }

  async #endIncarnation(reason: string, endCause: EndCause): Promise<void> {
    const incarnation = this.#incarnation;
    await this.#update({ state: 'stopping', stateReason: reason, endCause });
    this.#incarnation = undefined;
    try {
      await incarnation?.cleanup.run();
    } catch (cause) {
      await this.#update({ ...this.#failure('something of it could not be removed'), endCause });
      throw new InstaVMError('teardown_incomplete', 'the sandbox ended, but something of it is still there', { cause });
    }
    await this.#update({ state: 'stopped', endedAt: this.#deps.clock.now(), expiresAt: null });
  }
}

/**
 * The one owner of a sandbox: every change goes through it, in order. It makes incarnations (restore, attach, personalize),
 * keeps their lease, notices their death, and ends them.
 */
import { InstaVMError } from '@instavm/wire';
import { CleanupStack } from './cleanup.ts';
import type { Clock } from './clock.ts';
import type { GuestConnector, GuestLink } from './guest.ts';
import { type IncarnationId, newIncarnationId } from './ids.ts';
import type { SandboxChange, SandboxRecords } from './records.ts';
import { decide, type SandboxRecord, type SandboxRequest, TRANSITIONS } from './sandbox.ts';
import { SerialQueue } from './serial-queue.ts';
import type { Templates } from './templates.ts';
import type { MicroVm, Vmm } from './vmm.ts';

/** SYNC and Personalize of a clone: tens of milliseconds; a busy emulating host may need seconds. */
const ATTACH_DEADLINE_MS = 30_000;

export type OwnerDependencies<Guest extends GuestLink> = {
  readonly vmm: Vmm;
  readonly templates: Templates;
  readonly connector: GuestConnector<Guest>;
  readonly records: SandboxRecords;
  readonly clock: Clock;
  readonly log: LifecycleLog;
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
  readonly cleanup: CleanupStack;
};

export class SandboxOwner<Guest extends GuestLink> {
  readonly #deps: OwnerDependencies<Guest>;
  readonly #queue = new SerialQueue();
  #record: SandboxRecord;
  #incarnation: Incarnation<Guest> | undefined;

  constructor(deps: OwnerDependencies<Guest>, record: SandboxRecord) {
    this.#deps = deps;
    this.#record = record;
  }

  get record(): SandboxRecord {
    return this.#record;
  }

  /** Whether a microVM of this sandbox exists. */
  get isAlive(): boolean {
    return this.#incarnation !== undefined;
  }

  /** Makes sure that the sandbox runs. @throws invalid_state, boot_failed, capacity_unavailable, guest_unresponsive */
  start(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('start')) await this.#makeIncarnation();
    });
  }

  /** Ends the sandbox; success when it has ended already. @throws teardown_incomplete */
  end(reason: string): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('end')) await this.#endIncarnation(reason);
    });
  }

  /** The guest of the running incarnation, started when there is none. @throws as `start` */
  async guest(): Promise<Guest> {
    const running = this.#record.state === 'running' ? this.#incarnation : undefined;
    if (running !== undefined) return running.guest;
    await this.start();
    if (this.#incarnation === undefined)
      throw new InstaVMError('invalid_state', 'the sandbox ended while it was started');
    return this.#incarnation.guest;
  }

  /** Changes what is kept about the sandbox without changing its state. */
  remember(change: Pick<SandboxChange, 'egress' | 'metadata'>): Promise<void> {
    return this.#queue.run(() => this.#update(change));
  }

  /** @returns whether there is work to do. @throws invalid_state */
  #request(request: SandboxRequest): boolean {
    const verdict = decide(this.#record.state, request);
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
    this.#record = { ...this.#record, ...change };
    if (!(await this.#deps.records.update(id, epoch, change))) {
      throw new InstaVMError('conflict', 'another daemon owns this sandbox now');
    }
  }

  async #makeIncarnation(): Promise<void> {
    const { vmm, templates, connector, clock, log } = this.#deps;
    const { id: sandboxId, size, ttlSeconds } = this.#record;
    const id = newIncarnationId();
    const epoch = this.#record.epoch + 1;
    const startedAt = clock.now();
    const expiresAt = new Date(startedAt.getTime() + ttlSeconds * 1000);
    await this.#update({
      state: 'creating',
      stateReason: null,
      incarnationId: id,
      epoch,
      startedAt,
      expiresAt,
      endedAt: null,
    });
    const cleanup = new CleanupStack();
    try {
      const vm = await vmm.restore(await templates.get(size), id);
      cleanup.push(() => vm.kill());
      const guest = await connector.attach(await vm.connect('control'), ATTACH_DEADLINE_MS);
      cleanup.push(() => guest.close());
      await guest.personalize(this.#identity(), ATTACH_DEADLINE_MS);
      const incarnation = { id, epoch, vm, guest, cleanup };
      this.#incarnation = incarnation;
      cleanup.push(clock.schedule(expiresAt, () => this.#expire(incarnation)));
      vm.exited.then((exit) => {
        if (!exit.requested)
          this.#died(incarnation, `the microVM ended by itself (${exit.signal ?? exit.code})`, exit.diagnostics);
      });
      this.#keepAttached(incarnation);
      await this.#update({ state: 'running' });
      log.info({ sandboxId, incarnationId: id, ms: clock.now().getTime() - startedAt.getTime() }, 'sandbox running');
    } catch (error) {
      this.#incarnation = undefined;
      await cleanup
        .run()
        .catch((cause: unknown) => log.warn({ sandboxId, err: cause }, 'clean-up after a failed start'));
      const reason = error instanceof InstaVMError ? error.message : 'the microVM could not be started';
      await this.#update({ state: 'failed', stateReason: reason, endedAt: clock.now(), expiresAt: null });
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
    incarnation.guest.closed.then(async () => {
      if (this.#incarnation !== incarnation) return;
      this.#deps.log.warn({ sandboxId: this.#record.id }, 'the control channel dropped; attaching again');
      try {
        const stream = await incarnation.vm.connect('control');
        const guest = await this.#deps.connector.attach(stream, ATTACH_DEADLINE_MS);
        incarnation.guest = guest;
        incarnation.cleanup.push(() => guest.close());
        this.#keepAttached(incarnation);
      } catch (error) {
        this.#died(incarnation, 'the guest agent no longer answers', String(error));
      }
    });
  }

  #expire(incarnation: Incarnation<Guest>): void {
    if (this.#incarnation !== incarnation) return;
    this.end('its lifetime ran out').catch((error: unknown) =>
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
        await incarnation.cleanup.run();
        await this.#update({ state: 'failed', stateReason: reason, endedAt: this.#deps.clock.now(), expiresAt: null });
      })
      .catch((error: unknown) =>
        this.#deps.log.warn({ sandboxId: this.#record.id, err: error }, 'cleaning up a lost sandbox'),
      );
  }

  async #endIncarnation(reason: string): Promise<void> {
    const incarnation = this.#incarnation;
    await this.#update({ state: 'stopping', stateReason: reason });
    this.#incarnation = undefined;
    try {
      await incarnation?.cleanup.run();
    } catch (cause) {
      await this.#update({ state: 'failed', stateReason: 'something of it could not be removed', expiresAt: null });
      throw new InstaVMError('teardown_incomplete', 'the sandbox ended, but something of it is still there', { cause });
    }
    await this.#update({ state: 'stopped', endedAt: this.#deps.clock.now(), expiresAt: null });
  }
}

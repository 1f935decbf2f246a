/**
 * The one owner of a sandbox: every change goes through it, in order. It makes incarnations from a template, a snapshot or a suspension,
 * keeps their lease, notices their death, suspends and ends them.
 */
import { InstaVMError } from '@instavm/wire';
import type { GuestLink } from './guest.ts';
import { type AccountId, newIncarnationId, newSnapshotId } from './ids.ts';
import { Incarnation, type IncarnationDependencies } from './incarnation.ts';
import type { SandboxChange, SandboxRecords, SnapshotRecord } from './records.ts';
import { decide, type EndCause, type SandboxRecord, type SandboxRequest, TRANSITIONS } from './sandbox.ts';
import { SerialQueue } from './serial-queue.ts';
import type { Snapshots } from './snapshots.ts';
import type { Templates } from './templates.ts';
import type { MicroVm, Vmm } from './vmm.ts';

const SYNC_DEADLINE_MS = 60_000;

export type OwnerDependencies<Guest extends GuestLink> = IncarnationDependencies<Guest> & {
  readonly vmm: Vmm;
  readonly templates: Templates;
  readonly snapshots: Snapshots;
  readonly records: SandboxRecords;
  /** Asked before every incarnation, in the same turn in which the state changes. @throws shutting_down, quota_exceeded */
  readonly admit: (accountId: AccountId) => void;
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

  /** Makes sure that the sandbox runs; one that is suspended is resumed. @throws invalid_state, boot_failed, capacity_unavailable, guest_unresponsive, snapshot_failed */
  start(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('start')) await this.#makeIncarnation();
    });
  }

  /**
   * Takes over the microVM that an earlier daemon left running, with what is left of its lease.
   * @throws guest_unresponsive; the microVM is then ended, and the sandbox has failed
   */
  adopt(vm: MicroVm): Promise<void> {
    return this.#queue.run(async () => {
      const { expiresAt, suspension } = this.#record;
      try {
        const incarnation = await Incarnation.begin(this.#deps, vm, this.#identity(), (...news) => this.#lost(...news));
        this.#incarnation = incarnation;
        // One that was about to be suspended runs on; what there is of its snapshot is nobody's.
        await this.#update({ state: 'running', suspension: null });
        this.#keepLease(incarnation, expiresAt ?? this.#deps.clock.now());
      } catch (error) {
        await this.#update(this.#failure('its guest did not answer after the daemon had started again'));
        throw error;
      }
      if (suspension !== null) await this.#deps.snapshots.discard(suspension.snapshotId);
    });
  }

  /** Resolves when nothing is under way. */
  settled(): Promise<void> {
    return this.#queue.run(async () => {});
  }

  /** Keeps memory, device state and disk, and lets the microVM go; success when that is so already. @throws invalid_state, snapshot_failed, capacity_unavailable; the sandbox then runs on */
  suspend(): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('suspend')) await this.#suspend();
    });
  }

  /**
   * Takes a snapshot while the sandbox runs; it stands still for that time.
   * @returns the record, which says `building` until `taken` settles
   * @throws invalid_state
   */
  async snapshot(name: string): Promise<{ record: SnapshotRecord; taken: Promise<void> }> {
    const { snapshots } = this.#deps;
    let begun: (record: SnapshotRecord) => void = () => {};
    const record = new Promise<SnapshotRecord>((resolve) => {
      begun = resolve;
    });
    const taken = this.#queue.run(async () => {
      this.#request('snapshot');
      const incarnation = this.#running();
      const guest = await incarnation.guest();
      const recorded = await snapshots.begin(this.#record, name);
      begun(recorded);
      await guest.sync(SYNC_DEADLINE_MS);
      await snapshots.take(recorded, incarnation.vm);
    });
    return { record: await Promise.race([record, taken.then(() => record)]), taken };
  }

  /** Ends the sandbox; success when it has ended already. @throws teardown_incomplete */
  end(reason: string, cause: EndCause): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#request('end')) await this.#end(reason, cause);
    });
  }

  /** For the end of the daemon: what is suspended by then has nothing that must end with it. @throws teardown_incomplete */
  endUnlessSuspended(reason: string, cause: EndCause): Promise<void> {
    return this.#queue.run(async () => {
      if (this.#record.state !== 'suspended' && this.#request('end')) await this.#end(reason, cause);
    });
  }

  /**
   * The guest of the running incarnation. Waits for one that is being made, resumes one that is suspended and may resume by itself, and
   * makes none. @throws invalid_state, lease_expired, and as `start`
   */
  async guest(): Promise<Guest> {
    if (this.#record.state !== 'running' || this.#incarnation === undefined) {
      await this.#queue.run(async () => {
        if (this.#record.state === 'suspended' && this.#request('wake')) await this.#makeIncarnation();
      });
    }
    if (this.#incarnation !== undefined) return this.#incarnation.guest();
    const { state, stateReason, endCause } = this.#record;
    const sentence = `the sandbox is ${state}${stateReason === null ? '' : `: ${stateReason}`}`;
    throw new InstaVMError(endCause === 'expiry' ? 'lease_expired' : 'invalid_state', sentence, { details: { state } });
  }

  /** Like `guest`, but a sandbox that lost its microVM gets a fresh one, unless it was ended by request. @throws as `start` */
  async wokenGuest(): Promise<Guest> {
    await this.#incarnation?.guest();
    // Behind everything that is under way: news of a loss may be.
    await this.#queue.run(async () => {
      if (this.#record.state !== 'running' && this.#request('wake')) await this.#makeIncarnation();
    });
    return this.guest();
  }

  /** Changes what is kept about the sandbox without changing its state. */
  remember(
    change: Pick<SandboxChange, 'egress' | 'metadata' | 'autoSuspend' | 'autoResume' | 'snapshotOnExpiry'>,
  ): Promise<void> {
    return this.#queue.run(() => this.#update(change));
  }

  /** @returns whether there is work to do. @throws invalid_state */
  #request(request: SandboxRequest): boolean {
    const verdict = decide(this.#record, request);
    const { id: sandboxId, state } = this.#record;
    this.#deps.log.info({ sandboxId, state, request, verdict: verdict.kind }, 'request');
    if (verdict.kind === 'deny') throw new InstaVMError('invalid_state', verdict.reason, { details: { state } });
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

  #running(): Incarnation<Guest> {
    if (this.#incarnation === undefined) throw new InstaVMError('internal', 'a running sandbox has no incarnation');
    return this.#incarnation;
  }

  /** A fresh one, or the one that the sandbox was suspended as. */
  async #makeIncarnation(): Promise<void> {
    const { clock, log, admit, snapshots } = this.#deps;
    const { id: sandboxId, ttlSeconds, accountId, suspension } = this.#record;
    admit(accountId);
    const id = newIncarnationId();
    const startedAt = clock.now();
    const leaseMs = suspension?.leaseLeftMs ?? ttlSeconds * 1000;
    const lease = (): Date => new Date(clock.now().getTime() + leaseMs);
    const begun = { stateReason: null, endCause: null, incarnationId: id, startedAt, endedAt: null };
    const state = suspension === null ? 'creating' : 'resuming';
    await this.#update({ ...begun, epoch: this.#record.epoch + 1, state, expiresAt: lease() });
    let incarnation: Incarnation<Guest> | undefined;
    try {
      const vm = await this.#restore(id);
      incarnation = await Incarnation.begin(this.#deps, vm, this.#identity(), (...news) => this.#lost(...news));
      this.#incarnation = incarnation;
      const expiresAt = lease();
      this.#keepLease(incarnation, expiresAt);
      await this.#update({ state: 'running', expiresAt, suspension: null });
    } catch (error) {
      this.#incarnation = undefined;
      await incarnation
        ?.end()
        .catch((cause: unknown) => log.warn({ sandboxId, err: cause }, 'clean-up after a failed start'));
      const reason = error instanceof InstaVMError ? error.message : 'the microVM could not be started';
      const resting = { state: 'suspended', stateReason: reason, expiresAt: null, suspension } as const;
      await this.#update(suspension === null ? this.#failure(reason) : resting);
      throw error;
    }
    if (suspension !== null) await snapshots.discard(suspension.snapshotId);
    log.info({ sandboxId, incarnationId: id, ms: clock.now().getTime() - startedAt.getTime() }, 'sandbox running');
  }

  async #restore(id: ReturnType<typeof newIncarnationId>): Promise<MicroVm> {
    const { vmm, templates, snapshots } = this.#deps;
    const { suspension, snapshotId, size } = this.#record;
    const from = suspension?.snapshotId ?? snapshotId;
    if (from === null) return vmm.restore(await templates.get(size), id);
    return snapshots.load(from, (snapshot) => vmm.restore(snapshot, id));
  }

  #identity() {
    const hex = this.#record.id.replaceAll('-', '');
    // machine-id(5) wants a value that is stable for the machine and no secret; the sandbox id is both.
    return { hostname: `sandbox-${hex.slice(0, 12)}`, machineIdHex: hex, env: this.#record.env };
  }

  #keepLease(incarnation: Incarnation<Guest>, expiresAt: Date): void {
    const { clock, log } = this.#deps;
    const expire = (): void => {
      this.#queue
        .run(async () => {
          if (this.#incarnation === incarnation) await this.#expire();
        })
        .catch((error: unknown) => log.warn({ sandboxId: this.#record.id, err: error }, 'ending an expired sandbox'));
    };
    incarnation.onEnd(clock.schedule(expiresAt, expire));
  }

  /** What the contract has happen at the end of a lease (§7). A snapshot that fails does not keep the sandbox. */
  async #expire(): Promise<void> {
    const { log, snapshots } = this.#deps;
    const { autoSuspend, snapshotOnExpiry, id: sandboxId } = this.#record;
    try {
      if (autoSuspend) return await this.#suspend();
      if (snapshotOnExpiry !== null) {
        const incarnation = this.#running();
        await (await incarnation.guest()).sync(SYNC_DEADLINE_MS);
        await snapshots.take(await snapshots.begin(this.#record, snapshotOnExpiry), incarnation.vm);
      }
    } catch (error) {
      log.warn({ sandboxId, err: error }, 'keeping an expired sandbox');
    }
    await this.#end('its lifetime ran out', 'expiry');
  }

  async #suspend(): Promise<void> {
    const { clock, log, snapshots } = this.#deps;
    const incarnation = this.#running();
    const { expiresAt, ttlSeconds } = this.#record;
    const left = (expiresAt?.getTime() ?? 0) - clock.now().getTime();
    const suspension = {
      snapshotId: newSnapshotId(),
      // One that is suspended because its lease was over gets a new one.
      leaseLeftMs: left > 0 ? left : ttlSeconds * 1000,
    };
    // The intent first: what an interrupted suspension leaves is found by it.
    await this.#update({ state: 'suspending', stateReason: null, suspension });
    this.#incarnation = undefined;
    try {
      await (await incarnation.guest()).sync(SYNC_DEADLINE_MS);
      incarnation.pauseWatch();
      await snapshots.store(suspension.snapshotId, incarnation.vm, 'end');
    } catch (error) {
      this.#incarnation = incarnation;
      await this.#update({ state: 'running', suspension: null });
      incarnation.resumeWatch();
      throw error;
    }
    await this.#update({ state: 'suspended', expiresAt: null });
    await incarnation
      .end()
      .catch((error: unknown) => log.warn({ sandboxId: this.#record.id, err: error }, 'clean-up after a suspension'));
  }

  /** Late news of an incarnation that is no longer the present one changes nothing. */
  #lost(incarnation: Incarnation<Guest>, reason: string, diagnostics: string): void {
    const { log } = this.#deps;
    const sandboxId = this.#record.id;
    this.#queue
      .run(async () => {
        if (this.#incarnation !== incarnation) return;
        log.warn({ sandboxId, reason, diagnostics }, 'sandbox lost');
        this.#incarnation = undefined;
        await incarnation.end().finally(() => this.#update(this.#failure(reason)));
      })
      .catch((error: unknown) => log.warn({ sandboxId, err: error }, 'cleaning up a lost sandbox'));
  }

  #failure(stateReason: string): SandboxChange {
    return { state: 'failed', stateReason, endCause: 'loss', endedAt: this.#deps.clock.now(), expiresAt: null };
  }

  async #end(reason: string, endCause: EndCause): Promise<void> {
    const incarnation = this.#incarnation;
    const { suspension } = this.#record;
    await this.#update({ state: 'stopping', stateReason: reason, endCause });
    this.#incarnation = undefined;
    try {
      await incarnation?.end();
      if (suspension !== null) await this.#deps.snapshots.discard(suspension.snapshotId);
    } catch (cause) {
      await this.#update({ ...this.#failure('something of it could not be removed'), endCause });
      throw new InstaVMError('teardown_incomplete', 'the sandbox ended, but something of it is still there', { cause });
    }
    await this.#update({ state: 'stopped', endedAt: this.#deps.clock.now(), expiresAt: null, suspension: null });
  }
}

/** All sandboxes of one daemon: makes owners, finds them, and ends them with the daemon. */
import { InstaVMError } from '@instavm/wire';
import type { GuestLink } from './guest.ts';
import { type AccountId, type IncarnationId, newSandboxId, type SandboxId, type SnapshotId } from './ids.ts';
import { type OwnerDependencies, SandboxOwner } from './owner.ts';
import type { SnapshotRecord } from './records.ts';
import type { SandboxRecord, SandboxState } from './sandbox.ts';
import type { MachineSize, MicroVm } from './vmm.ts';

/** What a sandbox is made with, and what it keeps. */
export type SandboxSettings = Pick<
  SandboxRecord,
  'size' | 'ttlSeconds' | 'metadata' | 'env' | 'egress' | 'autoSuspend' | 'autoResume' | 'snapshotOnExpiry'
>;
export type NewSandbox = SandboxSettings & {
  readonly accountId: AccountId;
  /** Begins there instead of in a template. */
  readonly snapshotId: SnapshotId | null;
};

const HOLDS_MICROVM: ReadonlySet<SandboxState> = new Set(['creating', 'running', 'suspending', 'resuming', 'stopping']);

/** States in which a microVM that is found running belongs to its sandbox; in others it was about to begin or to end. */
const SURVIVES: ReadonlySet<SandboxState> = new Set(['running', 'suspending']);

/** Beyond this many, owners of ended sandboxes that nobody asked for lately are forgotten. */
const MAX_OWNERS = 256;
const OWNER_IDLE_MS = 60_000;

export type ServiceDependencies<Guest extends GuestLink> = Omit<OwnerDependencies<Guest>, 'admit'> & {
  /** How many microVMs one account may have at once. */
  readonly maxAlivePerAccount: number;
};

export class SandboxService<Guest extends GuestLink> {
  readonly #deps: OwnerDependencies<Guest>;
  /** Owners of sandboxes that were used in this daemon's life. */
  readonly #owners = new Map<SandboxId, { readonly owner: SandboxOwner<Guest>; usedAt: number }>();
  readonly #maxAlivePerAccount: number;
  #closing = false;

  constructor({ maxAlivePerAccount, ...deps }: ServiceDependencies<Guest>) {
    this.#maxAlivePerAccount = maxAlivePerAccount;
    this.#deps = { ...deps, admit: (accountId) => this.#admit(accountId) };
  }

  /** Records a sandbox and starts it. @throws shutting_down, quota_exceeded, boot_failed, capacity_unavailable */
  async create(wanted: NewSandbox): Promise<SandboxOwner<Guest>> {
    const record: SandboxRecord = {
      ...wanted,
      id: newSandboxId(),
      state: 'stopped',
      stateReason: null,
      endCause: null,
      incarnationId: null,
      epoch: 0,
      createdAt: this.#deps.clock.now(),
      expiresAt: null,
      startedAt: null,
      endedAt: null,
      suspension: null,
    };
    const owner = this.#own(record, false);
    try {
      await owner.start();
    } catch (error) {
      // Refused before there was anything to record.
      if (owner.record.epoch === 0) this.#owners.delete(record.id);
      throw error;
    }
    return owner;
  }

  /**
   * A sandbox that begins in a snapshot, with the settings that the snapshot carries except those that are given.
   * @throws snapshot_not_found, snapshot_not_ready, and as `create`
   */
  async createFrom(
    accountId: AccountId,
    snapshotId: SnapshotId,
    given: Partial<Omit<SandboxSettings, 'size'>>,
  ): Promise<SandboxOwner<Guest>> {
    const { settings } = await this.#deps.snapshots.usable(accountId, snapshotId);
    return this.create({ ...settings, snapshotOnExpiry: null, ...given, accountId, snapshotId });
  }

  /**
   * A second sandbox that begins where this one is now. Without a name the snapshot in between is deleted again.
   * @throws as `snapshot` of the owner and `createFrom`
   */
  async fork(
    source: SandboxOwner<Guest>,
    name: string | undefined,
  ): Promise<{ owner: SandboxOwner<Guest>; snapshot: SnapshotRecord }> {
    const { accountId } = source.record;
    const { record, taken } = await source.snapshot(name ?? 'fork');
    await taken;
    try {
      return { owner: await this.createFrom(accountId, record.id, {}), snapshot: record };
    } finally {
      if (name === undefined) await this.#deps.snapshots.delete(accountId, record.id);
    }
  }

  /** @throws sandbox_not_found, also for another account's */
  async get(accountId: AccountId, id: SandboxId): Promise<SandboxOwner<Guest>> {
    const owner = this.#present(id) ?? this.#ownStored(await this.#deps.records.find(id));
    if (owner?.record.accountId !== accountId) throw new InstaVMError('sandbox_not_found', `there is no session ${id}`);
    return owner;
  }

  /** @throws incarnation_not_found, also for another account's */
  async getByIncarnation(accountId: AccountId, id: IncarnationId): Promise<SandboxOwner<Guest>> {
    const record = await this.#deps.records.findByIncarnation(id);
    if (record?.accountId !== accountId) throw new InstaVMError('incarnation_not_found', `there is no VM ${id}`);
    return this.get(accountId, record.id);
  }

  /** Newest first; `alive` leaves out those without a microVM. */
  list(accountId: AccountId, limit: number, alive = false): Promise<SandboxRecord[]> {
    return this.#deps.records.list(accountId, limit, alive);
  }

  #admit(accountId: AccountId): void {
    if (this.#closing) throw new InstaVMError('shutting_down', 'the daemon is stopping');
    let alive = 0;
    for (const { owner } of this.#owners.values()) {
      if (owner.record.accountId === accountId && HOLDS_MICROVM.has(owner.record.state)) alive++;
    }
    if (alive >= this.#maxAlivePerAccount) {
      throw new InstaVMError('quota_exceeded', `${alive} sandboxes are running; this account may run no more`);
    }
  }

  /** Finds or makes the template of a size, so that no sandbox of it waits for one. @throws boot_failed */
  async prepare(size: MachineSize): Promise<void> {
    await this.#deps.templates.get(size);
  }

  /**
   * After a start: microVMs that survived go on under their sandboxes, or are ended when none wants them; no other record may say that
   * it runs. What was suspended, or was just about to be, stays so when its files are complete; old records are forgotten.
   */
  async reconcile(
    keptMs: number,
    survivors: readonly MicroVm[] = [],
  ): Promise<{ adopted: number; lost: number; pruned: number }> {
    const { records, snapshots, clock } = this.#deps;
    const adopted = (await Promise.all(survivors.map((vm) => this.#adopt(vm)))).filter(Boolean).length;
    const suspensions = new Set<SnapshotId>();
    let lost = 0;
    for (const { id, epoch, suspension } of await records.listUnsettled()) {
      if (this.#owners.get(id)?.owner.isAlive) continue;
      if (suspension !== null && (await snapshots.isComplete(suspension.snapshotId))) {
        suspensions.add(suspension.snapshotId);
        await records.update(id, epoch, { state: 'suspended', expiresAt: null });
        continue;
      }
      lost++;
      const stateReason = 'the daemon ended without stopping it';
      const change = { state: 'stopped', stateReason, endCause: 'daemon', expiresAt: null, suspension: null } as const;
      await records.update(id, epoch, { ...change, endedAt: clock.now() });
    }
    await snapshots.reconcile(suspensions);
    const pruned = await records.prune(new Date(this.#now() - keptMs));
    return { adopted, lost, pruned };
  }

  /** @returns whether it goes on */
  async #adopt(vm: MicroVm): Promise<boolean> {
    const record = await this.#deps.records.findByIncarnation(vm.incarnationId);
    try {
      if (record !== undefined && SURVIVES.has(record.state)) {
        await this.#own(record, true).adopt(vm);
        return true;
      }
    } catch (error) {
      this.#deps.log.warn({ sandboxId: record?.id, err: error }, 'taking over a microVM');
    }
    await vm.kill();
    return false;
  }

  /** Lets every sandbox run on without this daemon; resolves when nothing is under way. */
  async leave(): Promise<void> {
    this.#closing = true;
    await Promise.all([...this.#owners.values()].map(({ owner }) => owner.settled()));
  }

  /** Ends every sandbox that has a microVM; those that are suspended stay so. @throws AggregateError of those that could not be */
  async close(): Promise<void> {
    this.#closing = true;
    const ends = await Promise.allSettled(
      [...this.#owners.values()]
        .filter(({ owner }) => owner.isAlive || !owner.isForgettable)
        .map(({ owner }) => owner.endUnlessSuspended('the daemon stopped', 'daemon')),
    );
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []));
    if (failures.length > 0) throw new AggregateError(failures, 'some sandboxes could not be ended');
  }

  #ownStored(record: SandboxRecord | undefined): SandboxOwner<Guest> | undefined {
    return record && (this.#present(record.id) ?? this.#own(record, true));
  }

  #present(id: SandboxId): SandboxOwner<Guest> | undefined {
    const entry = this.#owners.get(id);
    if (entry !== undefined) entry.usedAt = this.#now();
    return entry?.owner;
  }

  #own(record: SandboxRecord, isStored: boolean): SandboxOwner<Guest> {
    if (this.#owners.size >= MAX_OWNERS) this.#forgetIdle();
    const owner = new SandboxOwner(this.#deps, record, isStored);
    this.#owners.set(record.id, { owner, usedAt: this.#now() });
    return owner;
  }

  /** Never one that a request just asked for: two owners of one sandbox would be worse than a full map. */
  #forgetIdle(): void {
    for (const [id, { owner, usedAt }] of this.#owners) {
      if (owner.isForgettable && this.#now() - usedAt > OWNER_IDLE_MS) this.#owners.delete(id);
    }
  }

  #now(): number {
    return this.#deps.clock.now().getTime();
  }
}

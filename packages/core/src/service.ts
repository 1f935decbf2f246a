/** All sandboxes of one daemon: makes owners, finds them, brings back those of an earlier daemon, and ends or leaves them with this one. */
import { InstaVMError } from '@instavm/wire';
import { Admission, type AdmissionLimits, type Alive, type HostResources } from './admission.ts';
import type { SandboxOrigin } from './audit/sandbox-events.ts';
import type { GuestLink } from './guest.ts';
import { type AccountId, type IncarnationId, newSandboxId, type SandboxId } from './ids.ts';
import { mapLimited } from './map-limited.ts';
import { type OwnerDependencies, SandboxOwner } from './owner.ts';
import type { Quotas } from './quotas.ts';
import type { SandboxPage } from './records.ts';
import { type LifecyclePolicy, type SandboxRecord, type SandboxSpec, specOf } from './sandbox.ts';
import { SavedStates } from './saved-states.ts';
import type { SnapshotFiles, SnapshotRecord, SnapshotRecords } from './snapshot.ts';
import { Snapshots } from './snapshots.ts';
import { HOLDING_STATES } from './states.ts';
import type { StepObserver } from './steps.ts';
import { noTelemetry, type Telemetry } from './telemetry.ts';
import { Turns } from './turns.ts';
import type { MachineSize } from './vmm.ts';
import { WarmPool } from './warm-pool.ts';

export type NewSandbox = SandboxSpec & { readonly accountId: AccountId };

/** What may differ between a snapshot's sandbox and one that is made from it. Its size cannot. */
export type SpecChange = Partial<Omit<SandboxSpec, 'size' | 'lifecycle'> & { lifecycle: Partial<LifecyclePolicy> }>;

/** Beyond this many, owners of ended sandboxes that nobody asked for lately are forgotten. */
const MAX_OWNERS = 256;
const OWNER_IDLE_MS = 60_000;
/** Sandboxes that are attached again at once after a start. Each takes milliseconds, or is mute, and waited for with the others. */
const RECOVERED_AT_ONCE = 32;
/** Each writes the memory of a sandbox to the disk. */
const SUSPENDED_AT_ONCE = 2;
/** A warm microVM more must leave room for that many that someone asks for. */
const POOL_HEADROOM_MIB = 512;

export type ServiceDependencies<Guest extends GuestLink> = Omit<
  OwnerDependencies<Guest>,
  'telemetry' | 'admission' | 'turns' | 'pool' | 'states' | 'keepAtEnd' | 'reached' | 'requireStorage'
> & {
  readonly snapshots: SnapshotRecords;
  readonly files: SnapshotFiles;
  readonly host: HostResources;
  readonly limits: AdmissionLimits;
  /** How many microVMs are restored at the same time; the others wait for their turn. */
  readonly restoredAtOnce: number;
  readonly warmPool: { readonly size: MachineSize; readonly depth: number };
  readonly reached?: StepObserver;
  readonly telemetry?: Telemetry;
};

export type Recovered = { readonly unsettled: number; readonly reaped: number; readonly swept: number };

export class SandboxService<Guest extends GuestLink> {
  readonly snapshots: Snapshots<Guest>;
  readonly #deps: OwnerDependencies<Guest>;
  readonly #pool: WarmPool<Guest>;
  readonly #admission: Admission;
  /** Owners of sandboxes that were used in this daemon's life. */
  readonly #owners = new Map<SandboxId, { readonly owner: SandboxOwner<Guest>; usedAt: number }>();

  constructor(deps: ServiceDependencies<Guest>) {
    const { snapshots, files, host, limits, restoredAtOnce, warmPool, reached = () => {}, ...given } = deps;
    const ports = { ...given, telemetry: given.telemetry ?? noTelemetry };
    const states = new SavedStates(ports.vmm, files, snapshots);
    this.#admission = new Admission(host, limits, (accountId) => this.#aliveOf(accountId));
    const hasRoom = (): boolean => this.#admission.hasMemoryFor(POOL_HEADROOM_MIB);
    this.#pool = new WarmPool(ports, ports.templates, { ...warmPool, hasRoom });
    this.snapshots = new Snapshots({
      snapshots,
      states,
      clock: ports.clock,
      log: ports.log,
      reached,
      quotas: ports.quotas,
    });
    const keepAtEnd = async (owner: SandboxOwner<Guest>, name: string): Promise<void> => {
      await (await this.snapshots.take(owner, { name })).done;
    };
    const requireStorage = (accountId: AccountId) => this.snapshots.requireStorage(accountId);
    const turns = new Turns(ports.clock, restoredAtOnce);
    const shared = { states, pool: this.#pool, admission: this.#admission, turns, requireStorage };
    this.#deps = { ...ports, ...shared, reached, keepAtEnd };
  }

  /** MicroVMs that wait for someone to ask for one. */
  get warm(): number {
    return this.#pool.depth;
  }

  /** MicroVMs whose turn it is to be restored, and those that wait for theirs. */
  get restores(): { readonly active: number; readonly waiting: number } {
    const { active, waiting } = this.#deps.turns;
    return { active, waiting };
  }

  /** Records a sandbox and starts it. @throws shutting_down, quota_exceeded, boot_failed, capacity_unavailable */
  create(wanted: NewSandbox): Promise<SandboxOwner<Guest>> {
    const record = recordOf(wanted, this.#deps.clock.now());
    return this.#begin(record, { type: 'sandbox.created' }, (owner) => owner.start());
  }

  /**
   * A sandbox with the memory, disk, size, environment, metadata, lifetime and egress policy of a snapshot, and an identity of its own.
   * @throws as `create`; snapshot_damaged, snapshot_incompatible
   */
  createFrom(
    accountId: AccountId,
    { id, spec, filesId, sandboxId: sourceId }: SnapshotRecord,
    change: SpecChange,
    type: 'sandbox.restored' | 'sandbox.cloned' = 'sandbox.restored',
  ): Promise<SandboxOwner<Guest>> {
    const env = { ...spec.env, ...change.env };
    // A snapshot that was to be kept of its source is not one of every copy.
    const lifecycle = { ...spec.lifecycle, snapshotOnExpiry: null, ...change.lifecycle };
    const record = recordOf({ accountId, ...spec, ...change, env, lifecycle }, this.#deps.clock.now());
    return this.#begin({ ...record, snapshotId: id }, { type, sourceId }, (owner) => owner.startFrom(filesId));
  }

  /**
   * Copies of what is running or suspended now, each with an identity of its own.
   * @param name keeps the snapshot that they are made from, under this name
   * @throws as `createFrom`; then none of them is left
   */
  async clone(
    owner: SandboxOwner<Guest>,
    count: number,
    name: string | null,
    change: SpecChange,
  ): Promise<{ clones: SandboxOwner<Guest>[]; snapshot: SnapshotRecord }> {
    const { reached } = this.#deps;
    const isTransient = name === null;
    const { record, done } = await this.snapshots.take(owner, { name, isTransient });
    try {
      const snapshot = await done;
      reached('clone.saved');
      const made = await Promise.allSettled(
        Array.from({ length: count }, () =>
          this.createFrom(owner.record.accountId, snapshot, change, 'sandbox.cloned'),
        ),
      );
      const clones = made.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
      const failed = made.find((each) => each.status === 'rejected');
      if (failed !== undefined) {
        await Promise.all(clones.map((clone) => clone.end('another clone could not be made', 'daemon')));
        throw failed.reason;
      }
      reached('clone.made');
      return { clones, snapshot };
    } finally {
      // What cannot be removed now is with the next start, and changes nothing for the clones.
      if (isTransient)
        await this.snapshots.remove(record).catch((err: unknown) => {
          this.#deps.log.warn({ snapshotId: record.id, err }, 'removing what clones were made from');
        });
    }
  }

  /** @throws sandbox_not_found, also for another account's */
  async get(accountId: AccountId, id: SandboxId): Promise<SandboxOwner<Guest>> {
    const owner = this.#present(id) ?? this.#ownStored(await this.#deps.records.find(id));
    if (owner?.record.accountId !== accountId) throw new InstaVMError('sandbox_not_found', `there is no sandbox ${id}`);
    return owner;
  }

  /** Also by an earlier incarnation of it. @throws incarnation_not_found, also for another account's */
  async getByIncarnation(accountId: AccountId, id: IncarnationId): Promise<SandboxOwner<Guest>> {
    const record = await this.#deps.records.findByIncarnation(id);
    if (record?.accountId !== accountId) throw new InstaVMError('incarnation_not_found', `there is no VM ${id}`);
    return this.get(accountId, record.id);
  }

  /** Newest first. */
  list(accountId: AccountId, page: SandboxPage): Promise<SandboxRecord[]> {
    return this.#deps.records.list(accountId, page);
  }

  /** Suspends what runs of an account. What cannot be now is logged, and runs on. */
  async suspendAll(accountId: AccountId, reason: string): Promise<void> {
    const owners = [...this.#owners.values()].map(({ owner }) => owner);
    const running = owners.filter(({ record }) => record.accountId === accountId && record.state === 'running');
    await mapLimited(running, SUSPENDED_AT_ONCE, (owner) =>
      owner.suspend(reason).catch((err: unknown) => {
        this.#deps.log.warn({ sandboxId: owner.record.id, err }, 'a sandbox could not be suspended');
      }),
    );
  }

  /** Finds or makes the template of a size, so that no sandbox of it waits for one. @throws boot_failed */
  async prepare(size: MachineSize): Promise<void> {
    await this.#deps.templates.get(size);
  }

  /**
   * After a start, before any request: takes over what runs, finishes or undoes what was half-made, and removes what belongs to nobody.
   * @param keptMs how long records of ended sandboxes are kept
   */
  async recover(keptMs: number): Promise<Recovered> {
    const { vmm, records, states, log } = this.#deps;
    const survivors = new Map((await vmm.adoptSurvivors()).map((vm) => [vm.incarnationId, vm]));
    const unsettled = await records.listUnsettled();
    await mapLimited(unsettled, RECOVERED_AT_ONCE, async (record) => {
      const survivor = record.incarnationId === null ? undefined : survivors.get(record.incarnationId);
      if (record.incarnationId !== null) survivors.delete(record.incarnationId);
      await this.#own(record).recover(survivor);
    });
    // Warm ones, and those whose record says that they have ended.
    await mapLimited([...survivors.values()], RECOVERED_AT_ONCE, (vm) =>
      vm.kill().catch((err: unknown) => log.warn({ err }, 'ending what an earlier daemon left')),
    );
    await this.snapshots.recover();
    const reaped = (await vmm.reapLeftovers()) + survivors.size;
    const swept = await states.sweep();
    await records.prune(new Date(this.#now() - keptMs));
    return { unsettled: unsettled.length, reaped, swept };
  }

  /** Begins to keep microVMs ready. */
  warmUp(): void {
    this.#pool.open();
  }

  /**
   * Takes no more requests. `end` ends every sandbox; `keep` leaves what runs to the next daemon.
   * @returns how many were left running
   * @throws AggregateError of those that could not be ended
   */
  async close(fate: 'keep' | 'end'): Promise<number> {
    this.#admission.close();
    const owners = [...this.#owners.values()].map(({ owner }) => owner);
    const alive = owners.filter((owner) => owner.isAlive).length;
    // Before anything else: a client that is turned away must not cancel what is to be left running.
    const endings = Promise.allSettled(owners.map((owner) => owner.shutDown(fate)));
    await Promise.all([this.#pool.close(), this.snapshots.close()]);
    const ends = await endings;
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []));
    if (failures.length > 0) throw new AggregateError(failures, 'some sandboxes could not be ended');
    return fate === 'keep' ? alive : 0;
  }

  async #begin(
    record: SandboxRecord,
    origin: SandboxOrigin,
    start: (owner: SandboxOwner<Guest>) => Promise<void>,
  ): Promise<SandboxOwner<Guest>> {
    const owner = this.#own(record, origin);
    try {
      await start(owner);
    } catch (error) {
      // Refused before there was anything to record.
      if (owner.record.epoch === 0) this.#owners.delete(record.id);
      throw error;
    }
    return owner;
  }

  /** What counts against its quotas now. */
  async usedBy(accountId: AccountId): Promise<Quotas> {
    const kept = await this.snapshots.keptBy(accountId);
    return { ...this.#aliveOf(accountId), ...kept };
  }

  #aliveOf(accountId: AccountId): Alive {
    const alive = { sandboxes: 0, vcpus: 0, memoryMib: 0 };
    for (const { owner } of this.#owners.values()) {
      const { accountId: whose, state, size } = owner.record;
      if (whose !== accountId || !HOLDING_STATES.includes(state)) continue;
      alive.sandboxes++;
      alive.vcpus += size.vcpus;
      alive.memoryMib += size.memoryMib;
    }
    return alive;
  }

  #ownStored(record: SandboxRecord | undefined): SandboxOwner<Guest> | undefined {
    return record && (this.#present(record.id) ?? this.#own(record));
  }

  #present(id: SandboxId): SandboxOwner<Guest> | undefined {
    const entry = this.#owners.get(id);
    if (entry !== undefined) entry.usedAt = this.#now();
    return entry?.owner;
  }

  #own(record: SandboxRecord, origin?: SandboxOrigin): SandboxOwner<Guest> {
    if (this.#owners.size >= MAX_OWNERS) this.#forgetIdle();
    const owner = new SandboxOwner(this.#deps, record, origin);
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

function recordOf({ accountId, ...wanted }: NewSandbox, createdAt: Date): SandboxRecord {
  return {
    ...specOf(wanted),
    id: newSandboxId(),
    accountId,
    createdAt,
    state: 'stopped',
    stateReason: null,
    endCause: null,
    incarnationId: null,
    epoch: 0,
    expiresAt: null,
    startedAt: null,
    endedAt: null,
    savedIn: null,
    savedBytes: null,
    leaseLeftMs: null,
    snapshotId: null,
  };
}

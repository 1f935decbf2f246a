/** All sandboxes of one daemon: makes owners, finds them, and ends them with the daemon. */
import { InstaVMError } from '@instavm/wire';
import type { GuestLink } from './guest.ts';
import { type AccountId, type IncarnationId, newSandboxId, type SandboxId } from './ids.ts';
import { type OwnerDependencies, SandboxOwner } from './owner.ts';
import type { EgressPolicy, SandboxRecord } from './sandbox.ts';
import type { MachineSize } from './vmm.ts';

export type NewSandbox = {
  readonly accountId: AccountId;
  readonly size: MachineSize;
  readonly ttlSeconds: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string>>;
  readonly egress: EgressPolicy | null;
};

/** Beyond this many, owners of ended sandboxes are forgotten. */
const MAX_OWNERS = 256;

export class SandboxService<Guest extends GuestLink> {
  readonly #deps: OwnerDependencies<Guest>;
  /** Owners of sandboxes that were used in this daemon's life. */
  readonly #owners = new Map<SandboxId, SandboxOwner<Guest>>();
  #closing = false;

  constructor(deps: OwnerDependencies<Guest>) {
    this.#deps = deps;
  }

  /** Records a sandbox and starts it. @throws shutting_down, boot_failed, capacity_unavailable */
  async create(wanted: NewSandbox): Promise<SandboxOwner<Guest>> {
    if (this.#closing) throw new InstaVMError('shutting_down', 'the daemon is stopping');
    const record: SandboxRecord = {
      ...wanted,
      id: newSandboxId(),
      state: 'stopped',
      stateReason: null,
      incarnationId: null,
      epoch: 0,
      createdAt: this.#deps.clock.now(),
      expiresAt: null,
      startedAt: null,
      endedAt: null,
    };
    await this.#deps.records.insert(record);
    const owner = this.#own(record);
    await owner.start();
    return owner;
  }

  /** @throws sandbox_not_found, also for another account's */
  async get(accountId: AccountId, id: SandboxId): Promise<SandboxOwner<Guest>> {
    const owner = this.#owners.get(id) ?? this.#ownStored(await this.#deps.records.find(id));
    if (owner?.record.accountId !== accountId) throw new InstaVMError('sandbox_not_found', `there is no session ${id}`);
    return owner;
  }

  /** @throws incarnation_not_found, also for another account's */
  async getByIncarnation(accountId: AccountId, id: IncarnationId): Promise<SandboxOwner<Guest>> {
    const record = await this.#deps.records.findByIncarnation(id);
    if (record?.accountId !== accountId) throw new InstaVMError('incarnation_not_found', `there is no VM ${id}`);
    return this.get(accountId, record.id);
  }

  /** Newest first. */
  list(accountId: AccountId, limit: number): Promise<SandboxRecord[]> {
    return this.#deps.records.list(accountId, limit);
  }

  /** Sandboxes of the account that hold a microVM or are about to. */
  countAlive(accountId: AccountId): number {
    let count = 0;
    for (const { record } of this.#owners.values()) {
      if (record.accountId === accountId && (record.state === 'running' || record.state === 'creating')) count++;
    }
    return count;
  }

  /** After a crash: no microVM survived (the caller reaped them), so no record may say so. @returns how many changed */
  async reconcile(): Promise<number> {
    const lost = await this.#deps.records.listUnsettled();
    for (const record of lost) {
      const change = {
        state: 'stopped',
        stateReason: 'the daemon ended without stopping it',
        expiresAt: null,
      } as const;
      await this.#deps.records.update(record.id, record.epoch, { ...change, endedAt: this.#deps.clock.now() });
    }
    return lost.length;
  }

  /** Ends every sandbox. @throws AggregateError of those that could not be */
  async close(): Promise<void> {
    this.#closing = true;
    const ends = await Promise.allSettled([...this.#owners.values()].map((owner) => owner.end('the daemon stopped')));
    const failures = ends.flatMap((end) => (end.status === 'rejected' ? [end.reason as unknown] : []));
    if (failures.length > 0) throw new AggregateError(failures, 'some sandboxes could not be ended');
  }

  #ownStored(record: SandboxRecord | undefined): SandboxOwner<Guest> | undefined {
    return record && (this.#owners.get(record.id) ?? this.#own(record));
  }

  #own(record: SandboxRecord): SandboxOwner<Guest> {
    if (this.#owners.size >= MAX_OWNERS) this.#forgetEnded();
    const owner = new SandboxOwner(this.#deps, record);
    this.#owners.set(record.id, owner);
    return owner;
  }

  /** An owner of an ended sandbox holds nothing that the database does not. */
  #forgetEnded(): void {
    for (const [id, owner] of this.#owners) {
      if (!owner.isAlive && (owner.record.state === 'stopped' || owner.record.state === 'failed'))
        this.#owners.delete(id);
    }
  }
}

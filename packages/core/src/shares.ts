/**
 * Shares: which ports of sandboxes have an address, and who may use it. A share exists while it is not revoked and its sandbox has not
 * ended. How bytes reach the port is the preview proxy's.
 */
import { InstaVMError } from '@instavm/wire';
import type { Clock } from './clock.ts';
import { type AccountId, newShareId, type SandboxId, type ShareId } from './ids.ts';
import { absence } from './parts.ts';
import type { SandboxRecords } from './records.ts';
import type { SandboxRecord } from './sandbox.ts';
import type { ShareChange, ShareRecord, ShareRecords } from './share.ts';
import { ENDED_STATES } from './states.ts';

export type SharePorts = {
  readonly shares: ShareRecords;
  readonly sandboxes: Pick<SandboxRecords, 'find'>;
  readonly clock: Clock;
};

export type Withdrawal = 'revoked' | 'private';
export type WithdrawalListener = (id: ShareId, how: Withdrawal) => void;

export class Shares {
  readonly #ports: SharePorts;
  readonly #listeners = new Set<WithdrawalListener>();

  constructor(ports: SharePorts) {
    this.#ports = ports;
  }

  /**
   * The share of a port, the same one each time until it is revoked.
   * @param wanted what is left out is false of a new one, and stays as it is of one that is there
   * @throws lease_expired, invalid_state for a sandbox that has ended; share_not_found when it is revoked meanwhile
   */
  async open(sandbox: SandboxRecord, port: number, wanted: ShareChange = {}): Promise<ShareRecord> {
    if (ENDED_STATES.includes(sandbox.state)) throw absence(sandbox);
    const { id: sandboxId, accountId } = sandbox;
    const createdAt = this.#ports.clock.now();
    const { isPublic = false, rewriteHost = false } = wanted;
    const made = { id: newShareId(), accountId, sandboxId, port, isPublic, rewriteHost, createdAt, revokedAt: null };
    const share = await this.#ports.shares.open(made);
    const isSo =
      (wanted.isPublic ?? share.isPublic) === share.isPublic &&
      (wanted.rewriteHost ?? share.rewriteHost) === share.rewriteHost;
    return isSo ? share : this.#change(share.id, wanted);
  }

  /** For who only has the address. @returns undefined when there is no such share, it is revoked, or its sandbox has ended */
  async find(id: ShareId): Promise<ShareRecord | undefined> {
    const share = await this.#ports.shares.find(id);
    if (share === undefined || share.revokedAt !== null) return undefined;
    const sandbox = await this.#ports.sandboxes.find(share.sandboxId);
    return sandbox === undefined || ENDED_STATES.includes(sandbox.state) ? undefined : share;
  }

  /** @throws share_not_found, also for another account's */
  async get(accountId: AccountId, id: ShareId): Promise<ShareRecord> {
    const share = await this.find(id);
    if (share?.accountId !== accountId) throw noShare(id);
    return share;
  }

  /** Newest first. */
  list(accountId: AccountId, limit: number, sandboxId?: SandboxId): Promise<ShareRecord[]> {
    return this.#ports.shares.list(accountId, limit, sandboxId);
  }

  /** @throws share_not_found */
  async change(accountId: AccountId, id: ShareId, change: ShareChange): Promise<ShareRecord> {
    await this.get(accountId, id);
    return this.#change(id, change);
  }

  /** Success when it is revoked already, and when its sandbox has ended. @throws share_not_found, also for another account's */
  async revoke(accountId: AccountId, id: ShareId): Promise<void> {
    const share = await this.#ports.shares.find(id);
    if (share?.accountId !== accountId) throw noShare(id);
    if (await this.#ports.shares.update(id, { revokedAt: this.#ports.clock.now() })) this.#tell(id, 'revoked');
  }

  /** `listener` is told when a share is revoked and when a public one becomes private: who came in may have lost the right to it. */
  onWithdrawn(listener: WithdrawalListener): void {
    this.#listeners.add(listener);
  }

  async #change(id: ShareId, change: ShareChange): Promise<ShareRecord> {
    const before = await this.#ports.shares.update(id, change);
    if (before === undefined) throw noShare(id);
    const { isPublic = before.isPublic, rewriteHost = before.rewriteHost } = change;
    if (before.isPublic && !isPublic) this.#tell(id, 'private');
    return { ...before, isPublic, rewriteHost };
  }

  #tell(id: ShareId, how: Withdrawal): void {
    for (const listener of this.#listeners) listener(id, how);
  }
}

const noShare = (id: ShareId): InstaVMError => new InstaVMError('share_not_found', `there is no share ${id}`);

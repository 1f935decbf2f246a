/**
 * Shares: which ports of sandboxes have an address, who may use it, and which links to it were taken back. A share exists while it is not revoked and its sandbox has not
 * ended. How bytes reach the port is the preview proxy's.
 */
import { InstaVMError, MAX_LINK_SECONDS } from '@instavm/wire';
import type { Clock } from './clock.ts';
import { type AccountId, type LinkId, newShareId, type SandboxId, type ShareId } from './ids.ts';
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

/** What lets nobody in any more: the whole share, that it was public, or one link to it. */
export type Withdrawal = 'share' | 'public' | LinkId;
export type WithdrawalListener = (id: ShareId, what: Withdrawal) => void;

/** Open in one account at once. */
const MOST_OPEN = 1_000;
/** Links of one share, within the time that one is good for. */
const MOST_REVOKED_LINKS = 1_000;

export class Shares {
  readonly #ports: SharePorts;
  readonly #listeners = new Set<WithdrawalListener>();

  constructor(ports: SharePorts) {
    this.#ports = ports;
  }

  /**
   * The share of a port, the same one each time until it is revoked.
   * @param wanted what is left out is false of a new one, and stays as it is of one that is there
   * @throws lease_expired, invalid_state for a sandbox that has ended; quota_exceeded; share_not_found when it is revoked meanwhile
   */
  async open(sandbox: SandboxRecord, port: number, wanted: ShareChange = {}): Promise<ShareRecord> {
    if (ENDED_STATES.includes(sandbox.state)) throw absence(sandbox);
    const { id: sandboxId, accountId } = sandbox;
    const createdAt = this.#ports.clock.now();
    const { isPublic = false, rewriteHost = false } = wanted;
    const made = { id: newShareId(), accountId, sandboxId, port, isPublic, rewriteHost, createdAt, revokedAt: null };
    const share = await this.#ports.shares.open(made, MOST_OPEN);
    if (share === undefined)
      throw new InstaVMError('quota_exceeded', `${MOST_OPEN} ports are shared; this account may share no more`, {
        hint: 'Revoke shares that are no longer needed; GET /v1/shares lists them.',
      });
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

  /** Newest first; those after `before`, which may be revoked by now. @throws share_not_found for a `before` that is none of the account */
  async list(
    accountId: AccountId,
    page: { readonly limit: number; readonly sandboxId?: SandboxId | undefined; readonly before?: ShareId | undefined },
  ): Promise<ShareRecord[]> {
    const before = page.before && (await this.#ports.shares.find(page.before));
    if (page.before && before?.accountId !== accountId) throw noShare(page.before);
    return this.#ports.shares.list(accountId, { ...page, before });
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
    if (await this.#ports.shares.update(id, { revokedAt: this.#ports.clock.now() })) this.#tell(id, 'share');
  }

  /** One link, and the cookies that it became. Success when it is revoked already, has ended, or never was. @throws share_not_found, quota_exceeded */
  async revokeLink(accountId: AccountId, id: ShareId, linkId: LinkId): Promise<void> {
    await this.get(accountId, id);
    const now = this.#ports.clock.now();
    const forget = new Date(now.getTime() - MAX_LINK_SECONDS * 1_000);
    if (!(await this.#ports.shares.revokeLink(id, linkId, now, forget, MOST_REVOKED_LINKS)))
      throw new InstaVMError('quota_exceeded', `${MOST_REVOKED_LINKS} links of this share are revoked already`, {
        hint: 'Revoke the share, and with it every link; the port can be shared again.',
      });
    this.#tell(id, linkId);
  }

  isLinkRevoked(id: ShareId, linkId: LinkId): Promise<boolean> {
    return this.#ports.shares.isLinkRevoked(id, linkId);
  }

  /** `listener` is told of what lets nobody in any more, after it does not. */
  onWithdrawn(listener: WithdrawalListener): void {
    this.#listeners.add(listener);
  }

  async #change(id: ShareId, change: ShareChange): Promise<ShareRecord> {
    const before = await this.#ports.shares.update(id, change);
    if (before === undefined) throw noShare(id);
    const { isPublic = before.isPublic, rewriteHost = before.rewriteHost } = change;
    if (before.isPublic && !isPublic) this.#tell(id, 'public');
    return { ...before, isPublic, rewriteHost };
  }

  #tell(id: ShareId, what: Withdrawal): void {
    for (const listener of this.#listeners) listener(id, what);
  }
}

const noShare = (id: ShareId): InstaVMError => new InstaVMError('share_not_found', `there is no share ${id}`);

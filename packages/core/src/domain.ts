/** A custom domain, a host name of the user's own for a share, as a record, and the port that keeps it. Implemented by `@instavm/store`. */
import type { DomainName } from './domain-name.ts';
import type { AccountId, ShareId } from './ids.ts';

/**
 * ```
 *            TXT record found        certificate installed
 *  pending ───────────────► verified ───────────────► issued
 *     ▲ │ not found             │ refused
 *     │ └────────► failed ◄─────┘
 *     └──────────────┘ asked again
 * ```
 */
export type DomainStatus = 'pending' | 'verified' | 'issued' | 'failed';

/** From which statuses each is reached. */
export const DOMAIN_MOVES: Readonly<Record<DomainStatus, readonly DomainStatus[]>> = {
  pending: ['failed'],
  verified: ['pending'],
  issued: ['verified'],
  failed: ['pending', 'verified'],
};

/** The domain is its account's alone while it has one of these. */
export const HELD_STATUSES: readonly DomainStatus[] = ['verified', 'issued'];

/** A code of the error catalog, and a sentence with what to do. */
export type DomainFailure = { readonly code: string; readonly message: string };

export type DomainRecord = {
  /** Never used again. */
  readonly id: number;
  readonly accountId: AccountId;
  readonly domain: DomainName;
  /** May be revoked or gone: the domain then leads nowhere, and stays its account's. */
  readonly shareId: ShareId;
  readonly status: DomainStatus;
  /** Null unless it failed. */
  readonly failure: DomainFailure | null;
  /** What the TXT record has to say. */
  readonly verificationToken: string;
  /** As the client named it; nothing depends on it. */
  readonly dnsProvider: string;
  readonly createdAt: Date;
  readonly issuedAt: Date | null;
};

export type DomainMove =
  | { readonly status: 'pending' | 'verified' }
  | { readonly status: 'issued'; readonly issuedAt: Date }
  | { readonly status: 'failed'; readonly failure: DomainFailure };

export interface DomainRecords {
  /**
   * @returns the new one, or the one that the account has of this domain
   * @throws quota_exceeded when the account has `most` of them
   */
  insert(record: Omit<DomainRecord, 'id'>, most: number): Promise<DomainRecord>;
  find(id: number): Promise<DomainRecord | undefined>;
  /** The verified or issued one; there is one at most. */
  findHeld(domain: string): Promise<DomainRecord | undefined>;
  /** Newest first. */
  list(accountId: AccountId, limit: number): Promise<DomainRecord[]>;
  listByStatus(status: DomainStatus): Promise<DomainRecord[]>;
  /**
   * Applies a move that the present status allows.
   * @returns undefined when it does not, or there is no such record, and nothing was changed
   * @throws domain_taken when it would be held by two
   */
  move(id: number, move: DomainMove): Promise<DomainRecord | undefined>;
  remove(id: number): Promise<void>;
}

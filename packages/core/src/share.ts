/** A share, the address of one port of a sandbox, as a record, and the port that keeps it. Implemented by `@instavm/store`. */
import type { AccountId, LinkId, SandboxId, ShareId } from './ids.ts';

export type ShareSettings = {
  /** Whether anyone who knows the address may use it. */
  readonly isPublic: boolean;
  /** Whether the program is told that it is `localhost:<port>`, and not the name that visitors use. */
  readonly rewriteHost: boolean;
};
/** What is left out stays as it is. */
export type ShareChange = { readonly [Name in keyof ShareSettings]?: ShareSettings[Name] | undefined };

export type ShareRecord = ShareSettings & {
  readonly id: ShareId;
  readonly accountId: AccountId;
  readonly sandboxId: SandboxId;
  readonly port: number;
  readonly createdAt: Date;
  /** Null while it is open. A revoked one never opens again: its port gets another. */
  readonly revokedAt: Date | null;
};

export type SharePage = {
  readonly limit: number;
  readonly sandboxId?: SandboxId | undefined;
  /** Those that come after it. */
  readonly before?: ShareRecord | undefined;
};

/** Keeps shares as long as the record of their sandbox. */
export interface ShareRecords {
  /**
   * The open share of the record's port, which is `record` when there is none yet.
   * @returns undefined, and makes none, when the account has `most` open ones of sandboxes that have not ended
   */
  open(record: ShareRecord, most: number): Promise<ShareRecord | undefined>;
  /** Revoked ones too. */
  find(id: ShareId): Promise<ShareRecord | undefined>;
  /** Open ones of sandboxes that have not ended, newest first. */
  list(accountId: AccountId, page: SharePage): Promise<ShareRecord[]>;
  /** @returns what it was before; undefined when it was not open, and nothing was changed */
  update(id: ShareId, change: ShareChange | { readonly revokedAt: Date }): Promise<ShareRecord | undefined>;
  /**
   * Forgets what was revoked before `forget`.
   * @returns false, and revokes nothing, when `most` links are revoked already
   */
  revokeLink(id: ShareId, linkId: LinkId, at: Date, forget: Date, most: number): Promise<boolean>;
  isLinkRevoked(id: ShareId, linkId: LinkId): Promise<boolean>;
}

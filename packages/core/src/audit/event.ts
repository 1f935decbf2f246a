/** The audit trail: what was done, by whom, to what, in events that are only ever added. Implemented by `@instavm/store`. */
import type { AuditActorType, AuditGroup, AuditStatus, AuditType } from '@instavm/wire';
import type { AccountId, IncarnationId, SandboxId } from '../ids.ts';

/** On whose behalf something is done. */
export type Actor = {
  readonly type: AuditActorType;
  readonly id: string | null;
  /** For people: how a key begins, an e-mail address. */
  readonly name: string | null;
  readonly accountId: AccountId | null;
  readonly requestId: string | null;
  /** Where the request came from. */
  readonly address: string | null;
};

/** What the server does without anyone asking. */
export const SYSTEM: Actor = { type: 'system', id: null, name: null, accountId: null, requestId: null, address: null };

/** Who acts now. */
export type ActorSource = () => Actor;

export type NewAuditEvent = {
  /** Who may see it. */
  readonly accountId: AccountId;
  readonly type: AuditType;
  readonly status: AuditStatus;
  readonly resource?: { readonly type: string; readonly id: string };
  readonly sandboxId?: SandboxId;
  readonly incarnationId?: IncarnationId | null;
  /** Never a secret, nor what may hold one: environments, metadata, what a person typed. */
  readonly details?: Readonly<Record<string, unknown>>;
  readonly error?: string | null;
  /** Left out: who acts when it is written. */
  readonly actor?: Actor;
  /** Left out: when it is written. */
  readonly at?: Date;
};

export type StoredAuditEvent = {
  /** Numbered per account from 1, without holes until the oldest are forgotten. */
  readonly id: number;
  readonly at: Date;
  readonly type: string;
  readonly status: AuditStatus;
  readonly actor: Actor;
  readonly resource: { readonly type: string; readonly id: string } | null;
  readonly sandboxId: SandboxId | null;
  readonly incarnationId: IncarnationId | null;
  readonly details: Readonly<Record<string, unknown>>;
  readonly error: string | null;
};

export type AuditFilter = {
  readonly group?: AuditGroup | string | undefined;
  readonly type?: string | undefined;
  readonly status?: AuditStatus | undefined;
  /** The account of whoever acted. */
  readonly actorAccountId?: string | undefined;
  readonly incarnationId?: string | undefined;
  readonly sandboxId?: string | undefined;
};

export interface AuditTrail {
  /** For what is told of nothing that is kept; the rest is written with what it tells. */
  append(events: readonly NewAuditEvent[]): Promise<void>;
  /** Newest first, those before `beforeId`; with `afterId`, oldest first, those after it. */
  list(
    accountId: AccountId,
    filter: AuditFilter,
    page: { readonly limit: number; readonly beforeId?: number | undefined; readonly afterId?: number | undefined },
  ): Promise<StoredAuditEvent[]>;
  find(accountId: AccountId, id: number): Promise<StoredAuditEvent | undefined>;
  /** 0 when there is none. */
  newestId(accountId: AccountId): Promise<number>;
  /**
   * Forgets what is older than an instant, and of each account what is more than `most`; of those that guests and strangers cause
   * more than a tenth of that. The newest of every account stays, for the next to be numbered by. @returns how many
   */
  prune(olderThan: Date, most: number): Promise<number>;
}

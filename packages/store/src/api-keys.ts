/**
 * API keys. A secret is 256 random bits; only its SHA-256 is kept, which for such a secret needs no salt or stretching, and by which it
 * is looked up, so the time that takes tells nothing about it.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { AccountId, NewAuditEvent } from '@instavm/core';
import { InstaVMError, type KeyScope } from '@instavm/wire';
import type { Selectable, Updateable } from 'kysely';
import { ACCOUNT_COLUMNS, type Account, toAccount } from './account-row.ts';
import { AuditWriter } from './audit.ts';
import { instant, optionalJsonColumn } from './columns.ts';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

const SECRET_PREFIX = 'instavm_sk_';
const SHOWN_LENGTH = SECRET_PREFIX.length + 6;
/** Last use is recorded to this grain, so that a busy key does not mean a write per request. */
const LAST_USED_GRAIN_MS = 60_000;
/** Of one account, those that were revoked not among them. */
export const MAX_KEYS = 100;

export type ApiKey = {
  readonly id: number;
  readonly accountId: AccountId;
  readonly name: string;
  readonly description: string | null;
  /** The first characters of its secret. */
  readonly prefix: string;
  readonly scope: KeyScope;
  /** Entries that a sandbox must have in its metadata to be there for this key; null: all are. */
  readonly sandboxMetadata: Readonly<Record<string, unknown>> | null;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  readonly lastUsedAt: Date | null;
};

export type WantedKey = Pick<ApiKey, 'name'> &
  Partial<Pick<ApiKey, 'description' | 'scope' | 'sandboxMetadata' | 'expiresAt'>>;
export type KeyChange = Partial<Pick<ApiKey, 'name' | 'description' | 'expiresAt'>>;

/** A key with its secret, which is nowhere else. */
export type ShownKey = { readonly key: ApiKey; readonly secret: string };

export type Authenticated = {
  readonly account: Account;
  readonly key: ApiKey;
  /** Of a secret that was replaced: the end of its grace, whatever the key's own end is. */
  readonly secretEndsAt: Date | null;
};

export class ApiKeys {
  readonly #database: Database;
  readonly #audit: AuditWriter;

  constructor(database: Database, audit = new AuditWriter()) {
    this.#database = database;
    this.#audit = audit;
  }

  /** @throws quota_exceeded */
  async create(accountId: AccountId, wanted: WantedKey): Promise<ShownKey> {
    const secret = newSecret();
    const key = await this.#database.transaction().execute(async (transaction) => {
      const { count } = await transaction
        .selectFrom('api_keys')
        .select(({ fn }) => fn.countAll<number>().as('count'))
        .where('account_id', '=', accountId)
        .where('revoked_at', 'is', null)
        .executeTakeFirstOrThrow();
      if (Number(count) >= MAX_KEYS)
        throw new InstaVMError('quota_exceeded', `this account has ${count} keys and may have no more`, {
          hint: 'Revoke keys that are no longer needed.',
          details: { quota: 'keys', limit: MAX_KEYS },
        });
      return insertKey(transaction, this.#audit, accountId, wanted, secret, new Date().toISOString());
    });
    return { key, secret };
  }

  /** For the trail, not for access: the key that a secret was of, whether or not it opens anything still. */
  async whose(secret: string): Promise<{ readonly key: ApiKey; readonly why: 'revoked' | 'expired' } | undefined> {
    const hex = digest(secret);
    const row = await this.#database
      .selectFrom('api_keys')
      .selectAll()
      .where(({ eb, or }) => or([eb('sha256_hex', '=', hex), eb('previous_sha256_hex', '=', hex)]))
      .executeTakeFirst();
    return row && { key: toKey(row), why: row.revoked_at === null ? 'expired' : 'revoked' };
  }

  /** Those that were not revoked, newest first. */
  async list(accountId: AccountId): Promise<ApiKey[]> {
    const rows = await this.#keysOf(accountId).orderBy('id', 'desc').execute();
    return rows.map(toKey);
  }

  /** @returns undefined also for another account's and a revoked one */
  async find(accountId: AccountId, id: number): Promise<ApiKey | undefined> {
    const row = await this.#keysOf(accountId).where('id', '=', id).executeTakeFirst();
    return row && toKey(row);
  }

  /** @returns undefined as `find` */
  async update(accountId: AccountId, id: number, change: KeyChange): Promise<ApiKey | undefined> {
    const { name, description, expiresAt } = change;
    const columns = {
      ...(name !== undefined && { name }),
      ...(description !== undefined && { description }),
      ...(expiresAt !== undefined && { expires_at: expiresAt?.toISOString() ?? null }),
    };
    if (Object.keys(columns).length > 0) await this.#change(accountId, id, columns, 'key.changed');
    return this.find(accountId, id);
  }

  /** For good: nothing makes it valid again. @returns whether there was such a key */
  async revoke(accountId: AccountId, id: number): Promise<boolean> {
    return this.#change(accountId, id, { revoked_at: new Date().toISOString() }, 'key.revoked');
  }

  /**
   * A new secret for the same key.
   * @param graceMs how long the old one still works; one of before that is forgotten
   * @returns undefined as `find`
   */
  async rotate(accountId: AccountId, id: number, graceMs: number): Promise<ShownKey | undefined> {
    const secret = newSecret();
    return this.#database.transaction().execute(async (transaction) => {
      const row = await transaction
        .selectFrom('api_keys')
        .select('sha256_hex')
        .where('id', '=', id)
        .where('account_id', '=', accountId)
        .where('revoked_at', 'is', null)
        .executeTakeFirst();
      if (row === undefined) return undefined;
      const previous =
        graceMs > 0 ? { hex: row.sha256_hex, until: new Date(Date.now() + graceMs).toISOString() } : undefined;
      const columns = {
        sha256_hex: digest(secret),
        prefix: secret.slice(0, SHOWN_LENGTH),
        previous_sha256_hex: previous?.hex ?? null,
        previous_expires_at: previous?.until ?? null,
      };
      const updated = transaction.updateTable('api_keys').set(columns).where('id', '=', id).returningAll();
      const changed = await updated.executeTakeFirstOrThrow();
      await this.#audit.write(transaction, keyEvent(changed, 'key.rotated', { grace_seconds: graceMs / 1000 }));
      return { key: toKey(changed), secret };
    });
  }

  /** @returns undefined for what is no key, and for one that was revoked, replaced or has expired */
  async authenticate(secret: string): Promise<Authenticated | undefined> {
    const hex = digest(secret);
    const now = new Date();
    const row = await this.#database
      .selectFrom('api_keys')
      .selectAll()
      .where(({ eb, or, and }) =>
        or([
          eb('sha256_hex', '=', hex),
          and([eb('previous_sha256_hex', '=', hex), eb('previous_expires_at', '>', now.toISOString())]),
        ]),
      )
      .where('revoked_at', 'is', null)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    const key = toKey(row);
    if (key.expiresAt !== null && key.expiresAt <= now) return undefined;
    const account = await this.#database
      .selectFrom('accounts')
      .select(ACCOUNT_COLUMNS)
      .where('accounts.id', '=', key.accountId)
      .executeTakeFirstOrThrow();
    if (key.lastUsedAt === null || now.getTime() - key.lastUsedAt.getTime() > LAST_USED_GRAIN_MS) {
      const used = { last_used_at: now.toISOString() };
      await this.#database.updateTable('api_keys').set(used).where('id', '=', key.id).execute();
    }
    const isReplaced = row.sha256_hex !== hex;
    return { account: toAccount(account), key, secretEndsAt: isReplaced ? instant(row.previous_expires_at) : null };
  }

  #keysOf(accountId: AccountId) {
    return this.#database
      .selectFrom('api_keys')
      .selectAll()
      .where('account_id', '=', accountId)
      .where('revoked_at', 'is', null);
  }

  #change(
    accountId: AccountId,
    id: number,
    columns: Updateable<Tables['api_keys']>,
    type: 'key.changed' | 'key.revoked',
  ): Promise<boolean> {
    return this.#database.transaction().execute(async (transaction) => {
      const row = await transaction
        .updateTable('api_keys')
        .set(columns)
        .where('id', '=', id)
        .where('account_id', '=', accountId)
        .where('revoked_at', 'is', null)
        .returningAll()
        .executeTakeFirst();
      if (row === undefined) return false;
      const fields = Object.keys(columns).filter((name) => name !== 'revoked_at');
      await this.#audit.write(transaction, keyEvent(row, type, fields.length > 0 ? { fields } : {}));
      return true;
    });
  }
}

export const newSecret = (): string => SECRET_PREFIX + randomBytes(32).toString('base64url');

export async function insertKey(
  database: Pick<Database, 'insertInto' | 'selectFrom'>,
  audit: AuditWriter,
  accountId: AccountId,
  wanted: WantedKey,
  secret: string,
  createdAt: string,
): Promise<ApiKey> {
  const { name, description = null, scope = 'full', sandboxMetadata = null, expiresAt = null } = wanted;
  const row = await database
    .insertInto('api_keys')
    .values({
      account_id: accountId,
      name,
      description,
      scope,
      sandbox_metadata: sandboxMetadata && JSON.stringify(sandboxMetadata),
      expires_at: expiresAt?.toISOString() ?? null,
      prefix: secret.slice(0, SHOWN_LENGTH),
      sha256_hex: digest(secret),
      created_at: createdAt,
    })
    .returningAll()
    .executeTakeFirstOrThrow();
  const details = { scope, expires_at: row.expires_at, is_restricted: sandboxMetadata !== null };
  await audit.write(database, keyEvent(row, 'key.created', details));
  return toKey(row);
}

const keyEvent = (
  row: Selectable<Tables['api_keys']>,
  type: 'key.created' | 'key.changed' | 'key.rotated' | 'key.revoked',
  details: Readonly<Record<string, unknown>>,
): NewAuditEvent => ({
  ...{ type, status: 'success', accountId: row.account_id as AccountId },
  resource: { type: 'key', id: String(row.id) },
  details: { name: row.name, prefix: row.prefix, ...details },
});

const digest = (secret: string): string => createHash('sha256').update(secret).digest('hex');

function toKey(row: Selectable<Tables['api_keys']>): ApiKey {
  const { id, name, description, prefix, sandbox_metadata } = row;
  return {
    ...{ id, name, description, prefix },
    accountId: row.account_id as AccountId,
    scope: row.scope as KeyScope,
    sandboxMetadata: optionalJsonColumn(sandbox_metadata, 'api_keys.sandbox_metadata', id),
    createdAt: new Date(row.created_at),
    expiresAt: instant(row.expires_at),
    lastUsedAt: instant(row.last_used_at),
  };
}

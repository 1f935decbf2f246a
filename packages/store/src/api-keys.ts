/**
 * API keys. A secret is 256 random bits; only its SHA-256 is kept, which for such a secret needs no salt or stretching, and by which it
 * is looked up, so the time that takes tells nothing about it.
 */
import { createHash, randomBytes } from 'node:crypto';
import type { AccountId } from '@instavm/core';
import { InstaVMError, type KeyScope } from '@instavm/wire';
import type { Selectable, Updateable } from 'kysely';
import { ACCOUNT_COLUMNS, type Account, toAccount } from './account-row.ts';
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

export class ApiKeys {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** @throws quota_exceeded */
  async create(accountId: AccountId, wanted: WantedKey): Promise<ShownKey> {
    const secret = newSecret();
    const id = await this.#database.transaction().execute(async (transaction) => {
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
      return insertKey(transaction, accountId, wanted, secret, new Date().toISOString());
    });
    return { key: await this.#present(accountId, id), secret };
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
    if (Object.keys(columns).length > 0) await this.#change(accountId, id, columns);
    return this.find(accountId, id);
  }

  /** For good: nothing makes it valid again. @returns whether there was such a key */
  async revoke(accountId: AccountId, id: number): Promise<boolean> {
    return this.#change(accountId, id, { revoked_at: new Date().toISOString() });
  }

  /**
   * A new secret for the same key.
   * @param graceMs how long the old one still works; one of before that is forgotten
   * @returns undefined as `find`
   */
  async rotate(accountId: AccountId, id: number, graceMs: number): Promise<ShownKey | undefined> {
    const secret = newSecret();
    const isThere = await this.#database.transaction().execute(async (transaction) => {
      const row = await transaction
        .selectFrom('api_keys')
        .select('sha256_hex')
        .where('id', '=', id)
        .where('account_id', '=', accountId)
        .where('revoked_at', 'is', null)
        .executeTakeFirst();
      if (row === undefined) return false;
      const previous =
        graceMs > 0 ? { hex: row.sha256_hex, until: new Date(Date.now() + graceMs).toISOString() } : undefined;
      const columns = {
        sha256_hex: digest(secret),
        prefix: secret.slice(0, SHOWN_LENGTH),
        previous_sha256_hex: previous?.hex ?? null,
        previous_expires_at: previous?.until ?? null,
      };
      await transaction.updateTable('api_keys').set(columns).where('id', '=', id).execute();
      return true;
    });
    return isThere ? { key: await this.#present(accountId, id), secret } : undefined;
  }

  /** @returns undefined for what is no key, and for one that was revoked, replaced or has expired */
  async authenticate(secret: string): Promise<{ account: Account; key: ApiKey } | undefined> {
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
    return { account: toAccount(account), key };
  }

  #keysOf(accountId: AccountId) {
    return this.#database
      .selectFrom('api_keys')
      .selectAll()
      .where('account_id', '=', accountId)
      .where('revoked_at', 'is', null);
  }

  async #present(accountId: AccountId, id: number): Promise<ApiKey> {
    return toKey(await this.#keysOf(accountId).where('id', '=', id).executeTakeFirstOrThrow());
  }

  async #change(accountId: AccountId, id: number, columns: Updateable<Tables['api_keys']>): Promise<boolean> {
    const result = await this.#database
      .updateTable('api_keys')
      .set(columns)
      .where('id', '=', id)
      .where('account_id', '=', accountId)
      .where('revoked_at', 'is', null)
      .executeTakeFirst();
    return result.numUpdatedRows === 1n;
  }
}

export const newSecret = (): string => SECRET_PREFIX + randomBytes(32).toString('base64url');

/** @returns its id */
export async function insertKey(
  database: Pick<Database, 'insertInto'>,
  accountId: AccountId,
  wanted: WantedKey,
  secret: string,
  createdAt: string,
): Promise<number> {
  const { name, description = null, scope = 'full', sandboxMetadata = null, expiresAt = null } = wanted;
  const { id } = await database
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
    .returning('id')
    .executeTakeFirstOrThrow();
  return id;
}

const digest = (secret: string): string => createHash('sha256').update(secret).digest('hex');

const instant = (text: string | null): Date | null => (text === null ? null : new Date(text));

function toKey(row: Selectable<Tables['api_keys']>): ApiKey {
  const { id, name, description, prefix, sandbox_metadata } = row;
  return {
    ...{ id, name, description, prefix },
    accountId: row.account_id as AccountId,
    scope: row.scope as KeyScope,
    sandboxMetadata: sandbox_metadata === null ? null : (JSON.parse(sandbox_metadata) as Record<string, unknown>),
    createdAt: new Date(row.created_at),
    expiresAt: instant(row.expires_at),
    lastUsedAt: instant(row.last_used_at),
  };
}

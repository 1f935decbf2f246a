/** Accounts and API keys. A key is 256 random bits; only its SHA-256 is kept, which for such a key needs no salt or stretching. */
import { createHash, randomBytes } from 'node:crypto';
import { type AccountId, newAccountId } from '@instavm/core';
import type { Database } from './database.ts';

const KEY_PREFIX = 'instavm_sk_';
const PREFIX_LENGTH = KEY_PREFIX.length + 6;
/** Last use is recorded to this grain, so that a busy key does not mean a write per request. */
const LAST_USED_GRAIN_MS = 60_000;

export type Account = {
  readonly id: AccountId;
  readonly email: string;
  readonly name: string;
  readonly createdAt: Date;
  readonly isAdministrator: boolean;
  readonly isVerified: boolean;
};

/** The columns of an account, from any query that selects from the table under its own name. */
const COLUMNS = [
  'accounts.id',
  'accounts.email',
  'accounts.name',
  'accounts.created_at',
  'accounts.is_administrator',
  'accounts.email_verified',
] as const;

export class Accounts {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  async count(): Promise<number> {
    const row = await this.#database
      .selectFrom('accounts')
      .select(({ fn }) => fn.countAll<number>().as('count'))
      .executeTakeFirstOrThrow();
    return Number(row.count);
  }

  /**
   * An account with its first key, or neither.
   * @param keep is given the key, shown this once, before anything is stored; when it throws nothing is
   */
  async createWithKey(
    email: string,
    name: string,
    keyName: string,
    keep: (key: string) => void,
    { isAdministrator = false } = {},
  ): Promise<Account> {
    const account = {
      ...{ id: newAccountId(), email, name, createdAt: new Date() },
      ...{ isAdministrator, isVerified: true },
    };
    const createdAt = account.createdAt.toISOString();
    const key = newKey();
    keep(key);
    await this.#database.transaction().execute(async (transaction) => {
      const flags = { is_administrator: isAdministrator ? 1 : 0, email_verified: 1 };
      await transaction
        .insertInto('accounts')
        .values({ id: account.id, email, name, created_at: createdAt, updated_at: createdAt, ...flags })
        .execute();
      await insertKey(transaction, account.id, keyName, key, createdAt);
    });
    return account;
  }

  /** @returns the key, which is kept nowhere */
  async createKey(accountId: AccountId, name: string): Promise<string> {
    const key = newKey();
    await insertKey(this.#database, accountId, name, key, new Date().toISOString());
    return key;
  }

  async find(id: AccountId): Promise<Account | undefined> {
    const row = await this.#database
      .selectFrom('accounts')
      .select(COLUMNS)
      .where('accounts.id', '=', id)
      .executeTakeFirst();
    return row && accountOf(row);
  }

  /** E-mail addresses are kept in lower case. */
  async findByEmail(email: string): Promise<Account | undefined> {
    const row = await this.#database
      .selectFrom('accounts')
      .select(COLUMNS)
      .where('accounts.email', '=', email.toLowerCase())
      .executeTakeFirst();
    return row && accountOf(row);
  }

  /** The account of a valid key. Looked up by digest, so the time taken tells nothing about the key. */
  async findByKey(key: string): Promise<Account | undefined> {
    const row = await this.#database
      .selectFrom('api_keys')
      .innerJoin('accounts', 'accounts.id', 'api_keys.account_id')
      .select([...COLUMNS, 'api_keys.id as key_id', 'api_keys.last_used_at'])
      .where('api_keys.sha256_hex', '=', digest(key))
      .where('api_keys.revoked_at', 'is', null)
      .executeTakeFirst();
    if (row === undefined) return undefined;
    if (row.last_used_at === null || Date.now() - Date.parse(row.last_used_at) > LAST_USED_GRAIN_MS) {
      const lastUsed = { last_used_at: new Date().toISOString() };
      await this.#database.updateTable('api_keys').set(lastUsed).where('id', '=', row.key_id).execute();
    }
    return accountOf(row);
  }
}

const newKey = (): string => KEY_PREFIX + randomBytes(32).toString('base64url');

async function insertKey(
  database: Pick<Database, 'insertInto'>,
  accountId: AccountId,
  name: string,
  key: string,
  createdAt: string,
): Promise<void> {
  await database
    .insertInto('api_keys')
    .values({
      account_id: accountId,
      name,
      prefix: key.slice(0, PREFIX_LENGTH),
      sha256_hex: digest(key),
      created_at: createdAt,
      last_used_at: null,
      revoked_at: null,
    })
    .execute();
}

function accountOf(row: {
  id: string;
  email: string;
  name: string;
  created_at: string;
  is_administrator: number;
  email_verified: number;
}): Account {
  const { email, name } = row;
  const flags = { isAdministrator: row.is_administrator === 1, isVerified: row.email_verified === 1 };
  return { id: row.id as AccountId, email, name, createdAt: new Date(row.created_at), ...flags };
}

const digest = (key: string): string => createHash('sha256').update(key).digest('hex');

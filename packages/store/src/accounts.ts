/** Accounts. Their keys are a neighbour's (`api-keys.ts`). */
import { type AccountId, newAccountId } from '@instavm/core';
import { ACCOUNT_COLUMNS, type Account, toAccount } from './account-row.ts';
import { insertKey, newSecret } from './api-keys.ts';
import { AuditWriter } from './audit.ts';
import type { Database } from './database.ts';

export class Accounts {
  readonly #database: Database;
  readonly #audit: AuditWriter;

  constructor(database: Database, audit = new AuditWriter()) {
    this.#database = database;
    this.#audit = audit;
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
    const id = newAccountId();
    const createdAt = new Date().toISOString();
    const flags = { is_administrator: isAdministrator ? 1 : 0, email_verified: 1 };
    const secret = newSecret();
    keep(secret);
    return this.#database.transaction().execute(async (transaction) => {
      await transaction
        .insertInto('accounts')
        .values({ id, email, name, created_at: createdAt, updated_at: createdAt, ...flags })
        .execute();
      const created = { accountId: id, type: 'account.created', status: 'success' } as const;
      await this.#audit.write(transaction, { ...created, resource: { type: 'account', id }, details: { email } });
      await insertKey(transaction, this.#audit, id, { name: keyName }, secret, createdAt);
      const row = await transaction.selectFrom('accounts').select(ACCOUNT_COLUMNS).where('id', '=', id);
      return toAccount(await row.executeTakeFirstOrThrow());
    });
  }

  /** Those that are its own, by name; for the others the server's defaults hold. */
  async quotasOf(id: AccountId): Promise<Map<string, number>> {
    const query = this.#database.selectFrom('account_quotas').select(['quota', 'amount']).where('account_id', '=', id);
    return new Map((await query.execute()).map(({ quota, amount }) => [quota, amount]));
  }

  /** @param changes null: the server's default again */
  async setQuotas(id: AccountId, changes: Readonly<Record<string, number | null>>): Promise<void> {
    await this.#database.transaction().execute(async (transaction) => {
      for (const [quota, amount] of Object.entries(changes)) {
        await transaction
          .deleteFrom('account_quotas')
          .where('account_id', '=', id)
          .where('quota', '=', quota)
          .execute();
        if (amount !== null)
          await transaction.insertInto('account_quotas').values({ account_id: id, quota, amount }).execute();
      }
      const changed = { accountId: id, type: 'account.quotas_changed', status: 'success' } as const;
      await this.#audit.write(transaction, { ...changed, resource: { type: 'account', id }, details: changes });
    });
  }

  /** Of the account that has been there longest. */
  async administratorId(): Promise<AccountId | undefined> {
    const query = this.#database.selectFrom('accounts').select('id').where('is_administrator', '=', 1);
    return (await query.orderBy('created_at').limit(1).executeTakeFirst())?.id as AccountId | undefined;
  }

  async find(id: AccountId): Promise<Account | undefined> {
    const query = this.#database.selectFrom('accounts').select(ACCOUNT_COLUMNS).where('accounts.id', '=', id);
    const row = await query.executeTakeFirst();
    return row && toAccount(row);
  }

  /** Addresses are kept in lower case. */
  async findByEmail(email: string): Promise<Account | undefined> {
    const wanted = email.toLowerCase();
    const query = this.#database.selectFrom('accounts').select(ACCOUNT_COLUMNS).where('accounts.email', '=', wanted);
    const row = await query.executeTakeFirst();
    return row && toAccount(row);
  }
}

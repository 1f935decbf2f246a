/** What API keys may do and for how long, the secret that a rotated one had before; and quotas that an account has for itself. */
import { type Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';

export const keyColumns: Migration = {
  async up(db: Kysely<unknown>) {
    const table = () => db.schema.alterTable('api_keys');
    await table().addColumn('description', 'text').execute();
    // Keys of before could do everything.
    await table()
      .addColumn('scope', 'text', (column) => column.notNull().defaultTo('full'))
      .execute();
    await table().addColumn('sandbox_metadata', 'text').execute();
    await table().addColumn('expires_at', 'text').execute();
    await table().addColumn('previous_sha256_hex', 'text').execute();
    await table().addColumn('previous_expires_at', 'text').execute();
    await db.schema.createIndex('api_keys_by_account').on('api_keys').column('account_id').execute();
    await db.schema.createIndex('api_keys_by_previous').on('api_keys').column('previous_sha256_hex').execute();
    await db.schema
      .createTable('account_quotas')
      .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('quota', 'text', (column) => column.notNull())
      .addColumn('amount', 'integer', (column) => column.notNull())
      .addPrimaryKeyConstraint('account_quotas_key', ['account_id', 'quota'])
      .modifyEnd(sql`without rowid`)
      .execute();
  },
};

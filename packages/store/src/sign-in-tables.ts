/**
 * The tables of people who sign in. The authentication library reads and writes them by these names
 * (apps/instavmd/src/sign-in/library.ts); its user is our account, so an account's id is that of the tenant.
 */
import type { Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';

export type SignInTables = {
  /** One for each browser that is signed in. */
  sign_ins: {
    id: string;
    account_id: string;
    token: string;
    expires_at: string;
    created_at: string;
    updated_at: string;
    ip_address: string | null;
    user_agent: string | null;
  };
  /** How an account proves itself: a password today, other providers by the same row. */
  credentials: {
    id: string;
    account_id: string;
    provider_id: string;
    provider_account_id: string;
    password: string | null;
    access_token: string | null;
    refresh_token: string | null;
    id_token: string | null;
    access_token_expires_at: string | null;
    refresh_token_expires_at: string | null;
    scope: string | null;
    created_at: string;
    updated_at: string;
  };
  /** What may be used once and not for long: sign-in links and invitations, by digest. */
  verifications: {
    id: string;
    identifier: string;
    value: string;
    expires_at: string;
    created_at: string;
    updated_at: string;
  };
};

export const signInTables: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .alterTable('accounts')
      .addColumn('is_administrator', 'integer', (column) => column.notNull().defaultTo(0))
      .execute();
    await db.schema
      .alterTable('accounts')
      .addColumn('email_verified', 'integer', (column) => column.notNull().defaultTo(0))
      .execute();
    await db.schema.alterTable('accounts').addColumn('image', 'text').execute();
    await db.schema.alterTable('accounts').addColumn('updated_at', 'text').execute();
    // Before this there was no way to make any account but that of the first start.
    const tables = db as Kysely<{ accounts: { is_administrator: number; email_verified: number; updated_at: string } }>;
    const first = { is_administrator: 1, email_verified: 1, updated_at: new Date().toISOString() };
    await tables.updateTable('accounts').set(first).execute();
    await db.schema
      .createTable('sign_ins')
      .addColumn('id', 'text', (column) => column.primaryKey())
      .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('token', 'text', (column) => column.notNull().unique())
      .addColumn('expires_at', 'text', (column) => column.notNull())
      .addColumn('created_at', 'text', (column) => column.notNull())
      .addColumn('updated_at', 'text', (column) => column.notNull())
      .addColumn('ip_address', 'text')
      .addColumn('user_agent', 'text')
      .execute();
    await db.schema.createIndex('sign_ins_by_account').on('sign_ins').column('account_id').execute();
    await db.schema
      .createTable('credentials')
      .addColumn('id', 'text', (column) => column.primaryKey())
      .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('provider_id', 'text', (column) => column.notNull())
      .addColumn('provider_account_id', 'text', (column) => column.notNull())
      .addColumn('password', 'text')
      .addColumn('access_token', 'text')
      .addColumn('refresh_token', 'text')
      .addColumn('id_token', 'text')
      .addColumn('access_token_expires_at', 'text')
      .addColumn('refresh_token_expires_at', 'text')
      .addColumn('scope', 'text')
      .addColumn('created_at', 'text', (column) => column.notNull())
      .addColumn('updated_at', 'text', (column) => column.notNull())
      .execute();
    await db.schema.createIndex('credentials_by_account').on('credentials').column('account_id').execute();
    await db.schema
      .createTable('verifications')
      .addColumn('id', 'text', (column) => column.primaryKey())
      .addColumn('identifier', 'text', (column) => column.notNull())
      .addColumn('value', 'text', (column) => column.notNull())
      .addColumn('expires_at', 'text', (column) => column.notNull())
      .addColumn('created_at', 'text', (column) => column.notNull())
      .addColumn('updated_at', 'text', (column) => column.notNull())
      .execute();
    await db.schema.createIndex('verifications_by_identifier').on('verifications').column('identifier').execute();
  },
};

/** Migrations in order; a finished one is never edited. */
import type { Kysely } from 'kysely';
import type { Migration } from 'kysely/migration';

export const MIGRATIONS: Record<string, Migration> = {
  '0001_accounts_and_sandboxes': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('accounts')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('email', 'text', (column) => column.notNull().unique())
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('created_at', 'text', (column) => column.notNull())
        .execute();
      await db.schema
        .createTable('api_keys')
        .addColumn('id', 'integer', (column) => column.primaryKey().autoIncrement())
        .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('prefix', 'text', (column) => column.notNull())
        .addColumn('sha256_hex', 'text', (column) => column.notNull().unique())
        .addColumn('created_at', 'text', (column) => column.notNull())
        .addColumn('last_used_at', 'text')
        .addColumn('revoked_at', 'text')
        .execute();
      await db.schema
        .createTable('sandboxes')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
        .addColumn('state', 'text', (column) => column.notNull())
        .addColumn('state_reason', 'text')
        .addColumn('incarnation_id', 'text')
        .addColumn('epoch', 'integer', (column) => column.notNull())
        .addColumn('memory_mib', 'integer', (column) => column.notNull())
        .addColumn('vcpus', 'integer', (column) => column.notNull())
        .addColumn('ttl_seconds', 'integer', (column) => column.notNull())
        .addColumn('created_at', 'text', (column) => column.notNull())
        .addColumn('expires_at', 'text')
        .addColumn('started_at', 'text')
        .addColumn('ended_at', 'text')
        .addColumn('metadata', 'text', (column) => column.notNull())
        .addColumn('env', 'text', (column) => column.notNull())
        .addColumn('egress', 'text')
        .execute();
      await db.schema
        .createIndex('sandboxes_by_account')
        .on('sandboxes')
        .columns(['account_id', 'created_at'])
        .execute();
      await db.schema.createIndex('sandboxes_by_incarnation').on('sandboxes').column('incarnation_id').execute();
    },
  },
  '0002_end_cause': {
    async up(db: Kysely<unknown>) {
      await db.schema.alterTable('sandboxes').addColumn('end_cause', 'text').execute();
    },
  },
  '0003_snapshots': {
    async up(db: Kysely<unknown>) {
      const flag = (name: string, value: number) =>
        db.schema
          .alterTable('sandboxes')
          .addColumn(name, 'integer', (column) => column.notNull().defaultTo(value))
          .execute();
      for (const name of ['snapshot_id', 'suspension', 'snapshot_on_expiry'])
        await db.schema.alterTable('sandboxes').addColumn(name, 'text').execute();
      await flag('auto_suspend', 0);
      await flag('auto_resume', 1);
      await db.schema
        .createTable('snapshots')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
        .addColumn('name', 'text', (column) => column.notNull())
        .addColumn('status', 'text', (column) => column.notNull())
        .addColumn('error', 'text')
        .addColumn('source_incarnation_id', 'text')
        .addColumn('settings', 'text', (column) => column.notNull())
        .addColumn('stored_bytes', 'integer', (column) => column.notNull())
        .addColumn('created_at', 'text', (column) => column.notNull())
        .addColumn('last_used_at', 'text', (column) => column.notNull())
        .execute();
      await db.schema
        .createIndex('snapshots_by_account')
        .on('snapshots')
        .columns(['account_id', 'created_at'])
        .execute();
    },
  },
};

/** Migrations in order; a finished one is never edited. */
import { type Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';
import { auditTables } from './audit-tables.ts';
import { keyColumns } from './key-tables.ts';
import { ledgerTables } from './ledger-tables.ts';
import { signInTables } from './sign-in-tables.ts';

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
  '0003_lifecycle': {
    async up(db: Kysely<unknown>) {
      // What sandboxes of before did: resumed by anyone, kept by nobody.
      const before = JSON.stringify({
        autoResume: true,
        autoSuspend: false,
        snapshotOnExpiry: null,
        idleSuspendSeconds: null,
      });
      await db.schema
        .alterTable('sandboxes')
        .addColumn('lifecycle', 'text', (column) => column.notNull().defaultTo(before))
        .execute();
      await db.schema.alterTable('sandboxes').addColumn('saved_in', 'text').execute();
      await db.schema.alterTable('sandboxes').addColumn('lease_left_ms', 'integer').execute();
      await db.schema.alterTable('sandboxes').addColumn('snapshot_id', 'text').execute();
      await db.schema.createIndex('sandboxes_by_state').on('sandboxes').column('state').execute();
      await db.schema
        .createTable('incarnations')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('sandbox_id', 'text', (column) => column.notNull())
        .execute();
      await db.schema.createIndex('incarnations_by_sandbox').on('incarnations').column('sandbox_id').execute();
      await sql`insert into incarnations (id, sandbox_id)
        select incarnation_id, id from sandboxes where incarnation_id is not null`.execute(db);
      await db.schema
        .createTable('snapshots')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
        .addColumn('name', 'text')
        .addColumn('status', 'text', (column) => column.notNull())
        .addColumn('last_error', 'text')
        .addColumn('is_transient', 'integer', (column) => column.notNull())
        .addColumn('sandbox_id', 'text', (column) => column.notNull())
        .addColumn('incarnation_id', 'text')
        .addColumn('files_id', 'text', (column) => column.notNull())
        .addColumn('spec', 'text', (column) => column.notNull())
        .addColumn('template_key', 'text')
        .addColumn('size_bytes', 'integer')
        .addColumn('created_at', 'text', (column) => column.notNull())
        .addColumn('updated_at', 'text', (column) => column.notNull())
        .addColumn('used_at', 'text', (column) => column.notNull())
        .execute();
      await db.schema
        .createIndex('snapshots_by_account')
        .on('snapshots')
        .columns(['account_id', 'created_at'])
        .execute();
      await db.schema.createIndex('snapshots_by_files').on('snapshots').column('files_id').execute();
    },
  },
  '0004_egress_log': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('egress_log')
        .addColumn('sandbox_id', 'text', (column) => column.notNull())
        .addColumn('id', 'integer', (column) => column.notNull())
        .addColumn('at', 'text', (column) => column.notNull())
        .addColumn('kind', 'text', (column) => column.notNull())
        .addColumn('host', 'text', (column) => column.notNull())
        .addColumn('port', 'integer')
        .addColumn('address', 'text')
        .addColumn('allowed', 'integer', (column) => column.notNull())
        .addColumn('rule', 'text', (column) => column.notNull())
        .addColumn('outcome', 'text', (column) => column.notNull())
        .addColumn('reason', 'text')
        .addColumn('bytes_sent', 'integer', (column) => column.notNull())
        .addColumn('bytes_received', 'integer', (column) => column.notNull())
        .addColumn('duration_ms', 'integer')
        .addColumn('repeated', 'integer', (column) => column.notNull())
        .addPrimaryKeyConstraint('egress_log_key', ['sandbox_id', 'id'])
        .modifyEnd(sql`without rowid`)
        .execute();
    },
  },
  '0005_shares': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('shares')
        .addColumn('id', 'text', (column) => column.primaryKey())
        .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
        .addColumn('sandbox_id', 'text', (column) => column.notNull())
        .addColumn('port', 'integer', (column) => column.notNull())
        .addColumn('is_public', 'integer', (column) => column.notNull())
        .addColumn('created_at', 'text', (column) => column.notNull())
        .addColumn('revoked_at', 'text')
        .execute();
      await db.schema
        .createIndex('shares_open')
        .on('shares')
        .columns(['sandbox_id', 'port'])
        .unique()
        .where(sql.ref('revoked_at'), 'is', null)
        .execute();
      await db.schema.createIndex('shares_by_sandbox').on('shares').column('sandbox_id').execute();
      await db.schema.createIndex('shares_by_account').on('shares').columns(['account_id', 'created_at']).execute();
    },
  },
  '0006_custom_domains': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('custom_domains')
        // Numbers are not used again: a late writer, or a client with an old one, must not hit another domain.
        .addColumn('id', 'integer', (column) => column.primaryKey().autoIncrement())
        .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
        .addColumn('domain', 'text', (column) => column.notNull())
        // No foreign key: records of shares go before their domains do.
        .addColumn('share_id', 'text', (column) => column.notNull())
        .addColumn('status', 'text', (column) => column.notNull())
        .addColumn('failure', 'text')
        .addColumn('verification_token', 'text', (column) => column.notNull())
        .addColumn('dns_provider', 'text', (column) => column.notNull())
        .addColumn('created_at', 'text', (column) => column.notNull())
        .addColumn('issued_at', 'text')
        .execute();
      await db.schema
        .createIndex('custom_domains_held')
        .on('custom_domains')
        .column('domain')
        .unique()
        .where(sql.ref('status'), 'in', sql`('verified', 'issued')`)
        .execute();
      await db.schema
        .createIndex('custom_domains_of_account')
        .on('custom_domains')
        .columns(['account_id', 'domain'])
        .unique()
        .execute();
    },
  },
  '0007_revoked_links': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .createTable('revoked_links')
        .addColumn('share_id', 'text', (column) => column.notNull())
        .addColumn('link_id', 'text', (column) => column.notNull())
        .addColumn('revoked_at', 'text', (column) => column.notNull())
        .addPrimaryKeyConstraint('revoked_links_key', ['share_id', 'link_id'])
        .modifyEnd(sql`without rowid`)
        .execute();
    },
  },
  '0007_share_hosts': {
    async up(db: Kysely<unknown>) {
      await db.schema
        .alterTable('shares')
        .addColumn('rewrite_host', 'integer', (column) => column.notNull().defaultTo(0))
        .execute();
    },
  },
  '0008_key_scopes': keyColumns,
  '0009_ledger': ledgerTables,
  '0010_sign_in': signInTables,
  '0011_audit_events': auditTables,
};

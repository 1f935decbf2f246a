/** Audit events. Nothing changes one once it is written; they outlive what they tell of. */
import { type Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';

export type AuditTables = {
  /** Those of one account are numbered from 1. */
  audit_events: {
    account_id: string;
    id: number;
    at: string;
    type: string;
    status: string;
    actor_type: string;
    actor_id: string | null;
    actor_name: string | null;
    actor_account_id: string | null;
    request_id: string | null;
    address: string | null;
    resource_type: string | null;
    resource_id: string | null;
    sandbox_id: string | null;
    incarnation_id: string | null;
    details: string;
    error: string | null;
    /** Guests and strangers cause it as often as they like. */
    is_provoked: number;
  };
};

export const auditTables: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .createTable('audit_events')
      .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('id', 'integer', (column) => column.notNull())
      .addColumn('at', 'text', (column) => column.notNull())
      .addColumn('type', 'text', (column) => column.notNull())
      .addColumn('status', 'text', (column) => column.notNull())
      .addColumn('actor_type', 'text', (column) => column.notNull())
      .addColumn('actor_id', 'text')
      .addColumn('actor_name', 'text')
      .addColumn('actor_account_id', 'text')
      .addColumn('request_id', 'text')
      .addColumn('address', 'text')
      .addColumn('resource_type', 'text')
      .addColumn('resource_id', 'text')
      .addColumn('sandbox_id', 'text')
      .addColumn('incarnation_id', 'text')
      .addColumn('details', 'text', (column) => column.notNull())
      .addColumn('error', 'text')
      .addColumn('is_provoked', 'integer', (column) => column.notNull())
      .addPrimaryKeyConstraint('audit_events_key', ['account_id', 'id'])
      .modifyEnd(sql`without rowid`)
      .execute();
    // The primary key is the end of each.
    const index = (name: string, columns: string[]) =>
      db.schema
        .createIndex(name)
        .on('audit_events')
        .columns(['account_id', ...columns, 'id']);
    await index('audit_events_of_sandbox', ['sandbox_id']).where(sql.ref('sandbox_id'), 'is not', null).execute();
    await index('audit_events_of_type', ['type']).execute();
    await index('audit_events_provoked', []).where(sql.ref('is_provoked'), '=', 1).execute();
  },
};

/** The ledger, which nothing changes once it is written, the balances that follow from it, and what the meter leaves to its next start. */
import { type Generated, type Kysely, sql } from 'kysely';
import type { Migration } from 'kysely/migration';

export type LedgerTables = {
  ledger: {
    id: Generated<number>;
    key: string;
    account_id: string;
    kind: string;
    /** Positive for what is given, negative for what is charged. */
    micro_dollars: number;
    resource_id: string | null;
    from_at: string;
    to_at: string;
    vcpu_ms: number;
    mib_ms: number;
    bytes: number;
    note: string | null;
    created_at: string;
  };
  /** The sum of each account's entries, kept with them. */
  balances: { account_id: string; micro_dollars: number };
  /** MicroVMs that are being charged for. */
  metered_runs: {
    incarnation_id: string;
    sandbox_id: string;
    account_id: string;
    vcpus: number;
    memory_mib: number;
    began_at: string;
    charged_until: string;
    egress_bytes: number;
  };
  /** One row. */
  meter: { id: number; watched_until: string };
};

export const ledgerTables: Migration = {
  async up(db: Kysely<unknown>) {
    await db.schema
      .createTable('ledger')
      .addColumn('id', 'integer', (column) => column.primaryKey().autoIncrement())
      .addColumn('key', 'text', (column) => column.notNull().unique())
      .addColumn('account_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('kind', 'text', (column) => column.notNull())
      .addColumn('micro_dollars', 'integer', (column) => column.notNull())
      .addColumn('resource_id', 'text')
      .addColumn('from_at', 'text', (column) => column.notNull())
      .addColumn('to_at', 'text', (column) => column.notNull())
      .addColumn('vcpu_ms', 'integer', (column) => column.notNull())
      .addColumn('mib_ms', 'integer', (column) => column.notNull())
      .addColumn('bytes', 'integer', (column) => column.notNull())
      .addColumn('note', 'text')
      .addColumn('created_at', 'text', (column) => column.notNull())
      .execute();
    await db.schema.createIndex('ledger_by_account').on('ledger').columns(['account_id', 'from_at']).execute();
    for (const change of ['update', 'delete'])
      await sql`create trigger ${sql.raw(`ledger_no_${change}`)} before ${sql.raw(change)} on ledger
        begin select raise(abort, 'the ledger is only added to'); end`.execute(db);
    await db.schema
      .createTable('balances')
      .addColumn('account_id', 'text', (column) => column.primaryKey())
      .addColumn('micro_dollars', 'integer', (column) => column.notNull())
      .execute();
    await db.schema
      .createTable('metered_runs')
      .addColumn('incarnation_id', 'text', (column) => column.primaryKey())
      .addColumn('sandbox_id', 'text', (column) => column.notNull())
      .addColumn('account_id', 'text', (column) => column.notNull())
      .addColumn('vcpus', 'integer', (column) => column.notNull())
      .addColumn('memory_mib', 'integer', (column) => column.notNull())
      .addColumn('began_at', 'text', (column) => column.notNull())
      .addColumn('charged_until', 'text', (column) => column.notNull())
      .addColumn('egress_bytes', 'integer', (column) => column.notNull())
      .modifyEnd(sql`without rowid`)
      .execute();
    await db.schema
      .createTable('meter')
      .addColumn('id', 'integer', (column) => column.primaryKey())
      .addColumn('watched_until', 'text', (column) => column.notNull())
      .execute();
    await db.schema.alterTable('sandboxes').addColumn('saved_bytes', 'integer').execute();
  },
};

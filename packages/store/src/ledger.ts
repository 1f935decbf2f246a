/** The ledger in the database; implements core's `Ledger` and `UsageStore`, and answers what was used when. */
import type {
  AccountId,
  EntryKind,
  IncarnationId,
  Ledger,
  LedgerEntry,
  MeteredRun,
  NewAuditEvent,
  SandboxId,
  UsageStore,
} from '@instavm/core';
import { SYSTEM, WELCOME } from '@instavm/core';
import { type Insertable, type Selectable, sql, type Transaction } from 'kysely';
import { AuditWriter } from './audit.ts';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

/** SQLite takes 32,766 values in one statement (SQLITE_MAX_VARIABLE_NUMBER), and a row has at most 12. */
const ROWS_PER_STATEMENT = 500;
const THE_METER = 1;

export function ledger(database: Database, audit = new AuditWriter()): Ledger & UsageStore {
  return {
    add: (entries) => database.transaction().execute((transaction) => insert(transaction, audit, entries)),
    async balanceOf(accountId) {
      const query = database.selectFrom('balances').select('micro_dollars').where('account_id', '=', accountId);
      return (await query.executeTakeFirst())?.micro_dollars ?? 0;
    },
    async load() {
      const meter = await database.selectFrom('meter').select('watched_until').executeTakeFirst();
      const runs = await database.selectFrom('metered_runs').selectAll().execute();
      return { watchedUntil: meter === undefined ? null : new Date(meter.watched_until), runs: runs.map(toRun) };
    },
    commit: ({ watchedUntil, entries, runs, ended }) =>
      database.transaction().execute(async (transaction) => {
        const mark = { watched_until: watchedUntil.toISOString() };
        await transaction
          .insertInto('meter')
          .values({ id: THE_METER, ...mark })
          .onConflict((conflict) => conflict.column('id').doUpdateSet(mark))
          .execute();
        await insert(transaction, audit, entries);
        for (const some of chunks(runs.map(toRow)))
          await transaction
            .insertInto('metered_runs')
            .values(some)
            .onConflict((conflict) =>
              conflict.column('incarnation_id').doUpdateSet(({ ref }) => ({
                charged_until: ref('excluded.charged_until'),
                egress_bytes: ref('excluded.egress_bytes'),
              })),
            )
            .execute();
        for (const some of chunks(ended))
          await transaction.deleteFrom('metered_runs').where('incarnation_id', 'in', some).execute();
      }),
    async listStored() {
      const { rows } = await sql<{ account_id: string; bytes: number; since: string }>`
        select account_id, max(bytes) as bytes, min(since) as since from (
          select files_id, account_id, size_bytes as bytes, created_at as since from snapshots
            where status = 'ready' and is_transient = 0
          union all
          select saved_in, account_id, saved_bytes, coalesce(ended_at, created_at) from sandboxes
            where state = 'suspended' and saved_bytes is not null
        ) group by files_id`.execute(database);
      return rows.map(({ account_id, bytes, since }) => ({
        accountId: account_id as AccountId,
        bytes,
        since: new Date(since),
      }));
    },
  };
}

/** Those that are new, and the balances that follow. */
async function insert(
  transaction: Transaction<Tables>,
  audit: AuditWriter,
  entries: readonly LedgerEntry[],
): Promise<void> {
  const created_at = new Date().toISOString();
  for (const some of chunks(entries)) {
    const added = await transaction
      .insertInto('ledger')
      .values(some.map((entry) => ({ ...toColumns(entry), created_at })))
      .onConflict((conflict) => conflict.column('key').doNothing())
      .returning(['key', 'account_id', 'micro_dollars', 'kind', 'note'])
      .execute();
    await audit.write(transaction, ...added.filter(({ kind }) => kind === 'grant').map(grantEvent));
    const sums = new Map<string, number>();
    for (const { account_id, micro_dollars } of added)
      sums.set(account_id, (sums.get(account_id) ?? 0) + micro_dollars);
    for (const [account_id, micro_dollars] of sums)
      await transaction
        .insertInto('balances')
        .values({ account_id, micro_dollars })
        .onConflict((conflict) =>
          conflict.column('account_id').doUpdateSet(({ ref, eb }) => ({
            micro_dollars: eb(ref('balances.micro_dollars'), '+', micro_dollars),
          })),
        )
        .execute();
  }
}

type Granted = Pick<Selectable<Tables['ledger']>, 'key' | 'account_id' | 'micro_dollars' | 'note'>;

const grantEvent = ({ key, account_id, micro_dollars, note }: Granted): NewAuditEvent => ({
  ...{ accountId: account_id as AccountId, type: 'credit.granted', status: 'success' },
  // Given with the first look at the account, whoever's that is.
  ...(key.startsWith(WELCOME) && { actor: SYSTEM }),
  resource: { type: 'account', id: account_id },
  details: { dollars: micro_dollars / 1e6, note },
});

export type LedgerQuery = {
  readonly accountId: AccountId;
  readonly from: Date;
  readonly to: Date;
};

/** What was used and charged in a span of time. */
export type Used = {
  readonly microDollars: number;
  readonly vcpuMs: number;
  /** Of memory. */
  readonly mibMs: number;
  readonly storedMibMs: number;
  readonly egressBytes: number;
};

export type LedgerReader = {
  /** What was charged, newest first. */
  charges(query: LedgerQuery, limit: number, kind?: string): Promise<(LedgerEntry & { readonly id: number })[]>;
  /** By hour or day, as the ISO text of each begins, oldest first; those without use are left out. */
  used(query: LedgerQuery, by: 'hour' | 'day'): Promise<Map<string, Used>>;
  granted(query: LedgerQuery): Promise<number>;
};

const BUCKET_LENGTH = { hour: '2026-01-01T00'.length, day: '2026-01-01'.length };

export function ledgerReader(database: Database): LedgerReader {
  const within = ({ accountId, from, to }: LedgerQuery) =>
    database
      .selectFrom('ledger')
      .where('account_id', '=', accountId)
      .where('from_at', '>=', from.toISOString())
      .where('from_at', '<', to.toISOString());
  return {
    async charges(query, limit, kind) {
      const rows = await within(query)
        .selectAll()
        .where('kind', '!=', 'grant')
        .$if(kind !== undefined, (select) => select.where('kind', '=', kind ?? ''))
        .orderBy('from_at', 'desc')
        .orderBy('id', 'desc')
        .limit(limit)
        .execute();
      return rows.map((row) => ({ id: row.id, ...toEntry(row) }));
    },
    async used(query, by) {
      const bucket = sql<string>`substr(from_at, 1, ${sql.lit(BUCKET_LENGTH[by])})`;
      const rows = await within(query)
        .where('kind', '!=', 'grant')
        .select(({ fn }) => [
          bucket.as('bucket'),
          'kind',
          fn.sum<number>('micro_dollars').as('micro_dollars'),
          fn.sum<number>('vcpu_ms').as('vcpu_ms'),
          fn.sum<number>('mib_ms').as('mib_ms'),
          fn.sum<number>('bytes').as('bytes'),
        ])
        .groupBy([bucket, 'kind'])
        .orderBy(bucket)
        .execute();
      const buckets = new Map<string, Used>();
      for (const row of rows) {
        const sum = buckets.get(row.bucket) ?? NOTHING;
        const isStorage = row.kind === 'snapshot_storage';
        buckets.set(row.bucket, {
          microDollars: sum.microDollars - row.micro_dollars,
          vcpuMs: sum.vcpuMs + row.vcpu_ms,
          mibMs: sum.mibMs + (isStorage ? 0 : row.mib_ms),
          storedMibMs: sum.storedMibMs + (isStorage ? row.mib_ms : 0),
          egressBytes: sum.egressBytes + row.bytes,
        });
      }
      return buckets;
    },
    async granted(query) {
      const row = await within(query)
        .where('kind', '=', 'grant')
        .select(({ fn }) => fn.sum<number | null>('micro_dollars').as('sum'))
        .executeTakeFirst();
      return row?.sum ?? 0;
    },
  };
}

const NOTHING: Used = { microDollars: 0, vcpuMs: 0, mibMs: 0, storedMibMs: 0, egressBytes: 0 };

function chunks<T>(all: readonly T[]): T[][] {
  const count = Math.ceil(all.length / ROWS_PER_STATEMENT);
  return Array.from({ length: count }, (_, index) =>
    all.slice(index * ROWS_PER_STATEMENT, (index + 1) * ROWS_PER_STATEMENT),
  );
}

const toColumns = (entry: LedgerEntry): Omit<Insertable<Tables['ledger']>, 'created_at'> => ({
  key: entry.key,
  account_id: entry.accountId,
  kind: entry.kind,
  micro_dollars: entry.microDollars,
  resource_id: entry.resourceId,
  from_at: entry.from.toISOString(),
  to_at: entry.to.toISOString(),
  vcpu_ms: entry.vcpuMs,
  mib_ms: entry.mibMs,
  bytes: entry.bytes,
  note: entry.note,
});

const toEntry = (row: Selectable<Tables['ledger']>): LedgerEntry => ({
  key: row.key,
  accountId: row.account_id as AccountId,
  kind: row.kind as EntryKind,
  microDollars: row.micro_dollars,
  resourceId: row.resource_id,
  from: new Date(row.from_at),
  to: new Date(row.to_at),
  vcpuMs: row.vcpu_ms,
  mibMs: row.mib_ms,
  bytes: row.bytes,
  note: row.note,
});

const toRow = (run: MeteredRun): Insertable<Tables['metered_runs']> => ({
  incarnation_id: run.incarnationId,
  sandbox_id: run.sandboxId,
  account_id: run.accountId,
  vcpus: run.size.vcpus,
  memory_mib: run.size.memoryMib,
  began_at: run.beganAt.toISOString(),
  charged_until: run.chargedUntil.toISOString(),
  egress_bytes: run.egressBytes,
});

const toRun = (row: Selectable<Tables['metered_runs']>): MeteredRun => ({
  incarnationId: row.incarnation_id as IncarnationId,
  sandboxId: row.sandbox_id as SandboxId,
  accountId: row.account_id as AccountId,
  size: { vcpus: row.vcpus, memoryMib: row.memory_mib },
  beganAt: new Date(row.began_at),
  chargedUntil: new Date(row.charged_until),
  egressBytes: row.egress_bytes,
});

/** Snapshots in the database; implements core's `SnapshotRecords`. */
import type {
  AccountId,
  FilesId,
  IncarnationId,
  NewAuditEvent,
  SandboxId,
  SnapshotChange,
  SnapshotId,
  SnapshotRecord,
  SnapshotRecords,
  SnapshotStatus,
  TemplateKey,
} from '@instavm/core';
import { type Insertable, type Selectable, sql, type Updateable } from 'kysely';
import { AuditWriter } from './audit.ts';
import { jsonColumn } from './columns.ts';
import type { Database } from './database.ts';
import { hasEntries } from './metadata-filter.ts';
import type { Tables } from './schema.ts';

export function snapshotRecords(database: Database, audit = new AuditWriter()): SnapshotRecords {
  const select = () => database.selectFrom('snapshots').selectAll();
  // What has failed has no files any more.
  const files = () =>
    database
      .selectFrom('snapshots')
      .select('files_id')
      .where('status', '!=', 'failed')
      .union(
        database
          .selectFrom('sandboxes')
          .select(({ ref }) => ref('saved_in').$notNull().as('files_id'))
          .where('saved_in', 'is not', null),
      );
  return {
    async insert(record) {
      await database.insertInto('snapshots').values(toRow(record)).execute();
    },
    update: (id, change) =>
      database.transaction().execute(async (transaction) => {
        const row = await transaction
          .updateTable('snapshots')
          .set(toColumns(change))
          .where('id', '=', id)
          .returningAll()
          .executeTakeFirst();
        const record = toRecord(row);
        if (record !== undefined && change.status !== undefined) await audit.write(transaction, ...made(record));
      }),
    async find(id) {
      return toRecord(await select().where('id', '=', id).executeTakeFirst());
    },
    async list(accountId, limit, metadata = []) {
      let query = select().where('account_id', '=', accountId).where('is_transient', '=', 0);
      for (const wanted of metadata)
        query = query.where(({ ref }) => hasEntries(sql`json_extract(${ref('spec')}, '$.metadata')`, wanted));
      const rows = await query.orderBy('created_at', 'desc').orderBy('id').limit(limit).execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
    delete: (id) =>
      database.transaction().execute(async (transaction) => {
        const row = await transaction.deleteFrom('snapshots').where('id', '=', id).returningAll().executeTakeFirst();
        const record = toRecord(row);
        if (record !== undefined) await audit.write(transaction, ...deleted(record));
        return record !== undefined;
      }),
    async listUnsettled() {
      const rows = await select()
        .where(({ eb, or }) => or([eb('status', '=', 'building'), eb('is_transient', '=', 1)]))
        .execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
    async listUnused(namePrefix, usedBefore) {
      const rows = await select()
        .where('status', '!=', 'building')
        .where(({ fn, val }) => fn('substr', ['name', val(1), val(namePrefix.length)]), '=', namePrefix)
        .where('used_at', '<', usedBefore.toISOString())
        .execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
    async keptBy(accountId) {
      const { rows } = await sql<{ snapshots: number; bytes: number | null }>`
        select sum(snapshots) as snapshots, sum(bytes) as bytes from (
          select sum(is_snapshot) as snapshots, max(bytes) as bytes from (
            select files_id, 1 as is_snapshot, size_bytes as bytes from snapshots
              where account_id = ${accountId} and status != 'failed' and is_transient = 0
            union all
            select saved_in, 0, saved_bytes from sandboxes
              where account_id = ${accountId} and state = 'suspended' and saved_in is not null
          ) group by files_id
        )`.execute(database);
      return { snapshots: rows[0]?.snapshots ?? 0, storedBytes: rows[0]?.bytes ?? 0 };
    },
    async refersTo(id) {
      const row = await database
        .selectFrom(files().as('files'))
        .select('files_id')
        .where('files_id', '=', id)
        .executeTakeFirst();
      return row !== undefined;
    },
    async listFiles() {
      return new Set((await files().execute()).map((row) => row.files_id as FilesId));
    },
  };
}

/** Those for a clone come and go with it, and are nobody's business. */
function made(record: SnapshotRecord): NewAuditEvent[] {
  const { status, lastError: error, sizeBytes } = record;
  if (record.isTransient || status === 'building') return [];
  const isReady = status === 'ready';
  const details = { name: record.name, ...(isReady && { size_bytes: sizeBytes }) };
  return [{ ...about(record), type: 'snapshot.created', status: isReady ? 'success' : 'failure', details, error }];
}

const deleted = (record: SnapshotRecord): NewAuditEvent[] =>
  record.isTransient
    ? []
    : [{ ...about(record), type: 'snapshot.deleted', status: 'success', details: { name: record.name } }];

const about = ({ id, accountId, sandboxId, incarnationId }: SnapshotRecord) => ({
  ...{ accountId, sandboxId, incarnationId },
  resource: { type: 'snapshot', id },
});

function toRecord(row: Selectable<Tables['snapshots']> | undefined): SnapshotRecord | undefined {
  if (row === undefined) return undefined;
  return {
    id: row.id as SnapshotId,
    accountId: row.account_id as AccountId,
    name: row.name,
    status: row.status as SnapshotStatus,
    lastError: row.last_error,
    isTransient: row.is_transient === 1,
    sandboxId: row.sandbox_id as SandboxId,
    incarnationId: row.incarnation_id as IncarnationId | null,
    filesId: row.files_id as FilesId,
    spec: jsonColumn(row.spec, 'snapshots.spec', row.id),
    templateKey: row.template_key as TemplateKey | null,
    sizeBytes: row.size_bytes,
    createdAt: new Date(row.created_at),
    updatedAt: new Date(row.updated_at),
    usedAt: new Date(row.used_at),
  };
}

function toRow(record: SnapshotRecord): Insertable<Tables['snapshots']> {
  const { id, accountId, createdAt, ...rest } = record;
  const created = { id, account_id: accountId, created_at: createdAt.toISOString() };
  return { ...(toColumns(rest) as Insertable<Tables['snapshots']>), ...created };
}

function toColumns(change: SnapshotChange): Updateable<Tables['snapshots']> {
  const columns: Updateable<Tables['snapshots']> = {};
  if (change.name !== undefined) columns.name = change.name;
  if (change.status !== undefined) columns.status = change.status;
  if (change.lastError !== undefined) columns.last_error = change.lastError;
  if (change.isTransient !== undefined) columns.is_transient = change.isTransient ? 1 : 0;
  if (change.sandboxId !== undefined) columns.sandbox_id = change.sandboxId;
  if (change.incarnationId !== undefined) columns.incarnation_id = change.incarnationId;
  if (change.filesId !== undefined) columns.files_id = change.filesId;
  if (change.spec !== undefined) columns.spec = JSON.stringify(change.spec);
  if (change.templateKey !== undefined) columns.template_key = change.templateKey;
  if (change.sizeBytes !== undefined) columns.size_bytes = change.sizeBytes;
  if (change.updatedAt !== undefined) columns.updated_at = change.updatedAt.toISOString();
  if (change.usedAt !== undefined) columns.used_at = change.usedAt.toISOString();
  return columns;
}

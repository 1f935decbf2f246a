/** Snapshots in the database; implements core's `SnapshotRecordStore`. */
import type {
  AccountId,
  IncarnationId,
  SnapshotId,
  SnapshotRecord,
  SnapshotRecordStore,
  SnapshotStatus,
} from '@instavm/core';
import type { Selectable } from 'kysely';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

export function snapshotRecords(database: Database): SnapshotRecordStore {
  const select = () => database.selectFrom('snapshots').selectAll();
  return {
    async insert(record) {
      const { id, accountId, name, status, error, sourceIncarnationId, settings, storedBytes } = record;
      const row = {
        id,
        account_id: accountId,
        name,
        status,
        error,
        source_incarnation_id: sourceIncarnationId,
        settings: JSON.stringify(settings),
        stored_bytes: storedBytes,
        created_at: record.createdAt.toISOString(),
        last_used_at: record.lastUsedAt.toISOString(),
      };
      await database.insertInto('snapshots').values(row).execute();
    },
    async update(id, { status, error, storedBytes, lastUsedAt }) {
      const columns = {
        ...(status === undefined ? {} : { status }),
        ...(error === undefined ? {} : { error }),
        ...(storedBytes === undefined ? {} : { stored_bytes: storedBytes }),
        ...(lastUsedAt === undefined ? {} : { last_used_at: lastUsedAt.toISOString() }),
      };
      await database.updateTable('snapshots').set(columns).where('id', '=', id).execute();
    },
    async find(id) {
      const row = await select().where('id', '=', id).executeTakeFirst();
      return row && toRecord(row);
    },
    async list(accountId, limit) {
      const rows = await select()
        .where('account_id', '=', accountId)
        .orderBy('created_at', 'desc')
        .orderBy('id')
        .limit(limit)
        .execute();
      return rows.map(toRecord);
    },
    async listAll() {
      return (await select().execute()).map(toRecord);
    },
    async delete(id) {
      await database.deleteFrom('snapshots').where('id', '=', id).execute();
    },
  };
}

const toRecord = (row: Selectable<Tables['snapshots']>): SnapshotRecord => ({
  id: row.id as SnapshotId,
  accountId: row.account_id as AccountId,
  name: row.name,
  status: row.status as SnapshotStatus,
  error: row.error,
  sourceIncarnationId: row.source_incarnation_id as IncarnationId | null,
  settings: JSON.parse(row.settings) as SnapshotRecord['settings'],
  storedBytes: row.stored_bytes,
  createdAt: new Date(row.created_at),
  lastUsedAt: new Date(row.last_used_at),
});

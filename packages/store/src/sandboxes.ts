/** Sandboxes in the database; implements core's `SandboxRecords`. */
import {
  type AccountId,
  ALIVE_STATES,
  ENDED_STATES,
  type EndCause,
  type FilesId,
  HOLDING_STATES,
  type IncarnationId,
  type SandboxChange,
  type SandboxId,
  type SandboxRecord,
  type SandboxRecords,
  type SandboxState,
  type SnapshotId,
  TRANSITIONS,
} from '@instavm/core';
import { type Insertable, type Selectable, sql, type Transaction, type Updateable } from 'kysely';
import { AuditWriter } from './audit.ts';
import { instant, jsonColumn, optionalJsonColumn } from './columns.ts';
import type { Database } from './database.ts';
import { hasEntries } from './metadata-filter.ts';
import { comesAfter } from './paging.ts';
import type { Tables } from './schema.ts';

export function sandboxRecords(database: Database, audit = new AuditWriter()): SandboxRecords {
  const select = () => database.selectFrom('sandboxes').selectAll();
  return {
    insert: (record, events = []) =>
      database.transaction().execute(async (transaction) => {
        await transaction.insertInto('sandboxes').values(toRow(record)).execute();
        await remember(transaction, record.id, record.incarnationId);
        await audit.write(transaction, ...events);
      }),
    update: (id, epoch, change, events = []) =>
      database.transaction().execute(async (transaction) => {
        const result = await transaction
          .updateTable('sandboxes')
          .set(toColumns(change))
          .where('id', '=', id)
          .where('epoch', '=', epoch)
          .executeTakeFirst();
        if (result.numUpdatedRows !== 1n) return false;
        await remember(transaction, id, change.incarnationId);
        await audit.write(transaction, ...events);
        return true;
      }),
    async find(id) {
      return toRecord(await select().where('id', '=', id).executeTakeFirst());
    },
    async findByIncarnation(id) {
      const row = await database
        .selectFrom('incarnations')
        .innerJoin('sandboxes', 'sandboxes.id', 'incarnations.sandbox_id')
        .selectAll('sandboxes')
        .where('incarnations.id', '=', id)
        .executeTakeFirst();
      return toRecord(row);
    },
    async list(accountId, { limit, alive = false, ended = true, metadata = [], before }) {
      let query = select().where('account_id', '=', accountId);
      if (alive) query = query.where('state', 'in', ALIVE_STATES);
      if (!ended) query = query.where('state', 'not in', ENDED_STATES);
      for (const wanted of metadata) query = query.where(({ ref }) => hasEntries(ref('metadata'), wanted));
      if (before !== undefined) query = query.where(comesAfter(before));
      const rows = await query.orderBy('created_at', 'desc').orderBy('id').limit(limit).execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
    prune: (endedBefore) =>
      database.transaction().execute(async (transaction) => {
        const isOld = transaction
          .selectFrom('sandboxes')
          .select('id')
          .where('state', 'in', ENDED_STATES)
          .where('ended_at', '<', endedBefore.toISOString());
        await transaction.deleteFrom('incarnations').where('sandbox_id', 'in', isOld).execute();
        const theirs = transaction.selectFrom('shares').select('id').where('sandbox_id', 'in', isOld);
        await transaction.deleteFrom('revoked_links').where('share_id', 'in', theirs).execute();
        await transaction.deleteFrom('shares').where('sandbox_id', 'in', isOld).execute();
        await transaction.deleteFrom('egress_log').where('sandbox_id', 'in', isOld).execute();
        const result = await transaction.deleteFrom('sandboxes').where('id', 'in', isOld).executeTakeFirst();
        return Number(result.numDeletedRows);
      }),
    async listUnsettled() {
      const rows = await select().where('state', 'in', HOLDING_STATES).execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
  };
}

/** Of all accounts; every state is there. */
export async function countByState(database: Database): Promise<Record<SandboxState, number>> {
  const count = sql<number>`count(*)`.as('count');
  const rows = await database.selectFrom('sandboxes').select(['state', count]).groupBy('state').execute();
  const counted = new Map(rows.map((row) => [row.state, row.count]));
  const states = Object.keys(TRANSITIONS) as SandboxState[];
  return Object.fromEntries(states.map((state) => [state, counted.get(state) ?? 0])) as Record<SandboxState, number>;
}

/** Earlier incarnations stay known: clients keep the id that they were given first. */
async function remember(
  transaction: Transaction<Tables>,
  sandboxId: SandboxId,
  incarnationId: IncarnationId | null | undefined,
): Promise<void> {
  if (!incarnationId) return;
  const row = { id: incarnationId, sandbox_id: sandboxId };
  await transaction
    .insertInto('incarnations')
    .values(row)
    .onConflict((conflict) => conflict.doNothing())
    .execute();
}

function toRecord(row: Selectable<Tables['sandboxes']> | undefined): SandboxRecord | undefined {
  if (row === undefined) return undefined;
  return {
    id: row.id as SandboxId,
    accountId: row.account_id as AccountId,
    state: row.state as SandboxState,
    stateReason: row.state_reason,
    endCause: row.end_cause as EndCause | null,
    incarnationId: row.incarnation_id as IncarnationId | null,
    epoch: row.epoch,
    size: { memoryMib: row.memory_mib, vcpus: row.vcpus },
    ttlSeconds: row.ttl_seconds,
    createdAt: new Date(row.created_at),
    expiresAt: instant(row.expires_at),
    startedAt: instant(row.started_at),
    endedAt: instant(row.ended_at),
    metadata: jsonColumn(row.metadata, 'sandboxes.metadata', row.id),
    env: jsonColumn(row.env, 'sandboxes.env', row.id),
    egress: optionalJsonColumn(row.egress, 'sandboxes.egress', row.id),
    lifecycle: jsonColumn(row.lifecycle, 'sandboxes.lifecycle', row.id),
    savedIn: row.saved_in as FilesId | null,
    savedBytes: row.saved_bytes,
    leaseLeftMs: row.lease_left_ms,
    snapshotId: row.snapshot_id as SnapshotId | null,
  };
}

function toRow(record: SandboxRecord): Insertable<Tables['sandboxes']> {
  const { id, accountId, createdAt, ...rest } = record;
  const created = { id, account_id: accountId, created_at: createdAt.toISOString() };
  return { ...(toColumns(rest) as Insertable<Tables['sandboxes']>), ...created };
}

function toColumns(change: SandboxChange): Updateable<Tables['sandboxes']> {
  const text = (date: Date | null): string | null => date?.toISOString() ?? null;
  const columns: Updateable<Tables['sandboxes']> = {};
  if (change.state !== undefined) columns.state = change.state;
  if (change.stateReason !== undefined) columns.state_reason = change.stateReason;
  if (change.endCause !== undefined) columns.end_cause = change.endCause;
  if (change.incarnationId !== undefined) columns.incarnation_id = change.incarnationId;
  if (change.epoch !== undefined) columns.epoch = change.epoch;
  if (change.size !== undefined)
    Object.assign(columns, { memory_mib: change.size.memoryMib, vcpus: change.size.vcpus });
  if (change.ttlSeconds !== undefined) columns.ttl_seconds = change.ttlSeconds;
  if (change.expiresAt !== undefined) columns.expires_at = text(change.expiresAt);
  if (change.startedAt !== undefined) columns.started_at = text(change.startedAt);
  if (change.endedAt !== undefined) columns.ended_at = text(change.endedAt);
  if (change.metadata !== undefined) columns.metadata = JSON.stringify(change.metadata);
  if (change.env !== undefined) columns.env = JSON.stringify(change.env);
  if (change.egress !== undefined) columns.egress = change.egress === null ? null : JSON.stringify(change.egress);
  if (change.lifecycle !== undefined) columns.lifecycle = JSON.stringify(change.lifecycle);
  if (change.savedIn !== undefined) columns.saved_in = change.savedIn;
  if (change.savedBytes !== undefined) columns.saved_bytes = change.savedBytes;
  if (change.leaseLeftMs !== undefined) columns.lease_left_ms = change.leaseLeftMs;
  if (change.snapshotId !== undefined) columns.snapshot_id = change.snapshotId;
  return columns;
}

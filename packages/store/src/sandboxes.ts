/** Sandboxes in the database; implements core's `SandboxRecords`. */
import type {
  AccountId,
  EgressPolicy,
  EndCause,
  IncarnationId,
  SandboxChange,
  SandboxId,
  SandboxRecord,
  SandboxRecords,
  SandboxState,
  SnapshotId,
  Suspension,
} from '@instavm/core';
import type { Insertable, Selectable, Updateable } from 'kysely';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

const ALIVE: readonly SandboxState[] = ['creating', 'running', 'suspending', 'resuming'];
const UNSETTLED: readonly SandboxState[] = [...ALIVE, 'suspended', 'stopping'];

export function sandboxRecords(database: Database): SandboxRecords {
  const select = () => database.selectFrom('sandboxes').selectAll();
  return {
    async insert(record) {
      await database.insertInto('sandboxes').values(toRow(record)).execute();
    },
    async update(id, epoch, change) {
      const result = await database
        .updateTable('sandboxes')
        .set(toColumns(change))
        .where('id', '=', id)
        .where('epoch', '=', epoch)
        .executeTakeFirst();
      return result.numUpdatedRows === 1n;
    },
    async find(id) {
      return toRecord(await select().where('id', '=', id).executeTakeFirst());
    },
    async findByIncarnation(id) {
      return toRecord(await select().where('incarnation_id', '=', id).executeTakeFirst());
    },
    async list(accountId, limit, alive = false) {
      const rows = await select()
        .where('account_id', '=', accountId)
        .$if(alive, (query) => query.where('state', 'in', ALIVE))
        .orderBy('created_at', 'desc')
        .orderBy('id')
        .limit(limit)
        .execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
    async prune(endedBefore) {
      const result = await database
        .deleteFrom('sandboxes')
        .where('state', 'in', ['stopped', 'failed'])
        .where('ended_at', '<', endedBefore.toISOString())
        .executeTakeFirst();
      return Number(result.numDeletedRows);
    },
    async listUnsettled() {
      const rows = await select().where('state', 'in', UNSETTLED).execute();
      return rows.flatMap((row) => toRecord(row) ?? []);
    },
  };
}

function toRecord(row: Selectable<Tables['sandboxes']> | undefined): SandboxRecord | undefined {
  if (row === undefined) return undefined;
  const instant = (text: string | null): Date | null => (text === null ? null : new Date(text));
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
    metadata: JSON.parse(row.metadata) as Record<string, unknown>,
    env: JSON.parse(row.env) as Record<string, string>,
    egress: row.egress === null ? null : (JSON.parse(row.egress) as EgressPolicy),
    snapshotId: row.snapshot_id as SnapshotId | null,
    suspension: row.suspension === null ? null : (JSON.parse(row.suspension) as Suspension),
    autoSuspend: row.auto_suspend === 1,
    autoResume: row.auto_resume === 1,
    snapshotOnExpiry: row.snapshot_on_expiry,
  };
}

function toRow(record: SandboxRecord): Insertable<Tables['sandboxes']> {
  const { id, accountId, createdAt, ...rest } = record;
  const created = { id, account_id: accountId, created_at: createdAt.toISOString() };
  return { ...(toColumns(rest) as Insertable<Tables['sandboxes']>), ...created };
}

function toColumns(change: SandboxChange): Updateable<Tables['sandboxes']> {
  const instant = (date: Date | null): string | null => date?.toISOString() ?? null;
  const columns: Updateable<Tables['sandboxes']> = {};
  if (change.state !== undefined) columns.state = change.state;
  if (change.stateReason !== undefined) columns.state_reason = change.stateReason;
  if (change.endCause !== undefined) columns.end_cause = change.endCause;
  if (change.incarnationId !== undefined) columns.incarnation_id = change.incarnationId;
  if (change.epoch !== undefined) columns.epoch = change.epoch;
  if (change.size !== undefined)
    Object.assign(columns, { memory_mib: change.size.memoryMib, vcpus: change.size.vcpus });
  if (change.ttlSeconds !== undefined) columns.ttl_seconds = change.ttlSeconds;
  if (change.expiresAt !== undefined) columns.expires_at = instant(change.expiresAt);
  if (change.startedAt !== undefined) columns.started_at = instant(change.startedAt);
  if (change.endedAt !== undefined) columns.ended_at = instant(change.endedAt);
  if (change.metadata !== undefined) columns.metadata = JSON.stringify(change.metadata);
  if (change.env !== undefined) columns.env = JSON.stringify(change.env);
  if (change.snapshotId !== undefined) columns.snapshot_id = change.snapshotId;
  if (change.suspension !== undefined)
    columns.suspension = change.suspension === null ? null : JSON.stringify(change.suspension);
  if (change.autoSuspend !== undefined) columns.auto_suspend = Number(change.autoSuspend);
  if (change.autoResume !== undefined) columns.auto_resume = Number(change.autoResume);
  if (change.snapshotOnExpiry !== undefined) columns.snapshot_on_expiry = change.snapshotOnExpiry;
  if (change.egress !== undefined) columns.egress = change.egress === null ? null : JSON.stringify(change.egress);
  return columns;
}

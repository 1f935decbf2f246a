/** The audit trail in the database; implements core's `AuditTrail`, and lets its neighbours write an event in the transaction of what it tells. */
import type {
  AccountId,
  Actor,
  ActorSource,
  AuditFilter,
  AuditTrail,
  IncarnationId,
  NewAuditEvent,
  SandboxId,
  StoredAuditEvent,
} from '@instavm/core';
import { SYSTEM } from '@instavm/core';
import type { AuditActorType, AuditStatus, AuditType } from '@instavm/wire';
import type { Expression, ExpressionBuilder, Insertable, Selectable, SqlBool } from 'kysely';
import { jsonColumn } from './columns.ts';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

const MAX_TEXT = 1_000;
const MAX_DETAILS_LENGTH = 8_000;
/** Of what guests and strangers cause, this part of an account's events at most. */
const PROVOKED_PART = 10;

const PROVOKED: ReadonlySet<AuditType> = new Set([
  'egress.denied',
  'key.refused',
  'auth.sign_in_failed',
  'auth.permission_denied',
  'credit.refused',
  'quota.refused',
  'quota.rate_limited',
]);

type Writing = Pick<Database, 'selectFrom' | 'insertInto'>;

export class AuditWriter {
  readonly #actor: ActorSource;
  readonly #written: (accountId: AccountId) => void;

  /** @param written called within the transaction: what is read after it sees the event, if it was kept */
  constructor(actor: ActorSource = () => SYSTEM, written: (accountId: AccountId) => void = () => {}) {
    this.#actor = actor;
    this.#written = written;
  }

  /** @param database the transaction that writes what they tell */
  async write(database: Writing, ...events: readonly NewAuditEvent[]): Promise<void> {
    for (const event of events) {
      const id = (await newestId(database, event.accountId)) + 1;
      await database
        .insertInto('audit_events')
        .values(toRow(id, event, event.actor ?? this.#actor()))
        .execute();
      this.#written(event.accountId);
    }
  }
}

export function auditTrail(database: Database, writer: AuditWriter): AuditTrail {
  const of = (accountId: AccountId) => database.selectFrom('audit_events').where('account_id', '=', accountId);
  return {
    append: (events) => database.transaction().execute((transaction) => writer.write(transaction, ...events)),
    async list(accountId, filter, { limit, beforeId, afterId }) {
      const rows = await of(accountId)
        .selectAll()
        .where((where) => where.and(conditions(where, filter)))
        .$if(beforeId !== undefined, (query) => query.where('id', '<', beforeId ?? 0))
        .$if(afterId !== undefined, (query) => query.where('id', '>', afterId ?? 0))
        .orderBy('id', afterId === undefined ? 'desc' : 'asc')
        .limit(limit)
        .execute();
      return rows.map(toEvent);
    },
    async find(accountId, id) {
      const row = await of(accountId).selectAll().where('id', '=', id).executeTakeFirst();
      return row && toEvent(row);
    },
    newestId: (accountId) => newestId(database, accountId),
    prune: (olderThan, most) => database.transaction().execute((transaction) => prune(transaction, olderThan, most)),
  };
}

async function newestId(database: Pick<Writing, 'selectFrom'>, accountId: AccountId): Promise<number> {
  const row = await database
    .selectFrom('audit_events')
    .select(({ fn }) => fn.max('id').as('id'))
    .where('account_id', '=', accountId)
    .executeTakeFirst();
  return row?.id ?? 0;
}

/** By account, so that each is found through its own keys. */
async function prune(database: Database, olderThan: Date, most: number): Promise<number> {
  let removed = 0;
  const accounts = await database.selectFrom('audit_events').select('account_id').distinct().execute();
  for (const { account_id } of accounts) {
    const own = () => database.selectFrom('audit_events').where('account_id', '=', account_id);
    const { newest } = await own()
      .select(({ fn }) => fn.max('id').as('newest'))
      .executeTakeFirstOrThrow();
    const beyond = async (provoked: boolean, count: number): Promise<number> => {
      const all = own().select('id').orderBy('id', 'desc').offset(count).limit(1);
      const row = await all.$if(provoked, (query) => query.where('is_provoked', '=', 1)).executeTakeFirst();
      return row?.id ?? 0;
    };
    const last = Math.max(1, Math.floor(most / PROVOKED_PART));
    const [lastProvoked, lastOfAll] = [await beyond(true, last), await beyond(false, most)];
    const { numDeletedRows } = await database
      .deleteFrom('audit_events')
      .where('account_id', '=', account_id)
      .where('id', '<', newest)
      .where(({ eb, or, and }) =>
        or([
          eb('at', '<', olderThan.toISOString()),
          eb('id', '<=', lastOfAll),
          and([eb('is_provoked', '=', 1), eb('id', '<=', lastProvoked)]),
        ]),
      )
      .executeTakeFirst();
    removed += Number(numDeletedRows);
  }
  return removed;
}

function conditions(
  where: ExpressionBuilder<Tables, 'audit_events'>,
  { group, type, status, actorAccountId, incarnationId, sandboxId }: AuditFilter,
): Expression<SqlBool>[] {
  return [
    // "/" is what follows ".".
    ...(group === undefined ? [] : [where('type', '>', `${group}.`), where('type', '<', `${group}/`)]),
    ...(type === undefined ? [] : [where('type', '=', type)]),
    ...(status === undefined ? [] : [where('status', '=', status)]),
    ...(actorAccountId === undefined ? [] : [where('actor_account_id', '=', actorAccountId)]),
    ...(incarnationId === undefined ? [] : [where('incarnation_id', '=', incarnationId)]),
    ...(sandboxId === undefined ? [] : [where('sandbox_id', '=', sandboxId)]),
  ];
}

function toRow(id: number, event: NewAuditEvent, actor: Actor): Insertable<Tables['audit_events']> {
  const { accountId, type, status, resource, sandboxId, incarnationId, details = {}, error, at = new Date() } = event;
  return {
    account_id: accountId,
    id,
    at: at.toISOString(),
    type,
    status,
    actor_type: actor.type,
    actor_id: actor.id,
    actor_name: shortened(actor.name),
    actor_account_id: actor.accountId,
    request_id: actor.requestId,
    address: shortened(actor.address),
    resource_type: resource?.type ?? null,
    resource_id: resource?.id ?? null,
    sandbox_id: sandboxId ?? null,
    incarnation_id: incarnationId ?? null,
    details: bounded(details),
    error: shortened(error ?? null),
    is_provoked: PROVOKED.has(type) ? 1 : 0,
  };
}

const shortened = (text: string | null): string | null => text?.slice(0, MAX_TEXT) ?? null;

function bounded(details: Readonly<Record<string, unknown>>): string {
  const text = JSON.stringify(details, (_, value) => (typeof value === 'string' ? value.slice(0, MAX_TEXT) : value));
  return text.length <= MAX_DETAILS_LENGTH
    ? text
    : JSON.stringify({ too_long: true, fields: Object.keys(details).slice(0, 20) });
}

function toEvent(row: Selectable<Tables['audit_events']>): StoredAuditEvent {
  const { resource_type: type, resource_id: id } = row;
  return {
    id: row.id,
    at: new Date(row.at),
    type: row.type,
    status: row.status as AuditStatus,
    actor: {
      type: row.actor_type as AuditActorType,
      id: row.actor_id,
      name: row.actor_name,
      accountId: row.actor_account_id as AccountId | null,
      requestId: row.request_id,
      address: row.address,
    },
    resource: type === null || id === null ? null : { type, id },
    sandboxId: row.sandbox_id as SandboxId | null,
    incarnationId: row.incarnation_id as IncarnationId | null,
    details: jsonColumn(row.details, 'audit_events.details', row.id),
    error: row.error,
  };
}

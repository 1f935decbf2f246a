/** What guests tried to reach, in the database; implements core's `EgressLog`. */
import type { EgressEntry, EgressLog, SandboxId, StoredEgressEntry } from '@instavm/core';
import type { Insertable, Selectable } from 'kysely';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

/** Of one sandbox; a row takes about 200 bytes. */
export const EGRESS_ROWS_KEPT = 10_000;
/** SQLite takes 32,766 values in one statement (SQLITE_MAX_VARIABLE_NUMBER), and a row has 15. */
const ROWS_PER_STATEMENT = 500;

export function egressLog(database: Database): EgressLog {
  return {
    append: (sandboxId, entries) =>
      database.transaction().execute(async (transaction) => {
        const last = await transaction
          .selectFrom('egress_log')
          .select(({ fn }) => fn.max('id').as('id'))
          .where('sandbox_id', '=', sandboxId)
          .executeTakeFirst();
        const next = (last?.id ?? 0) + 1;
        const rows = entries.map((entry, index) => toRow(sandboxId, next + index, entry));
        for (let done = 0; done < rows.length; done += ROWS_PER_STATEMENT)
          await transaction
            .insertInto('egress_log')
            .values(rows.slice(done, done + ROWS_PER_STATEMENT))
            .execute();
        await transaction
          .deleteFrom('egress_log')
          .where('sandbox_id', '=', sandboxId)
          .where('id', '<', next + rows.length - EGRESS_ROWS_KEPT)
          .execute();
      }),
    async list(sandboxId, { limit, afterId, beforeId, verdict, host }) {
      const own = database.selectFrom('egress_log').where('sandbox_id', '=', sandboxId);
      const ends = await own
        .select(({ fn }) => [fn.min('id').as('oldest'), fn.max('id').as('newest')])
        .executeTakeFirstOrThrow();
      const rows = await own
        .selectAll()
        .$if(afterId !== undefined, (query) => query.where('id', '>', afterId ?? 0))
        .$if(beforeId !== undefined, (query) => query.where('id', '<', beforeId ?? 0))
        .$if(verdict !== undefined, (query) => query.where('allowed', '=', verdict === 'allowed' ? 1 : 0))
        .$if(host !== undefined, (query) =>
          query.where(({ eb, or, fn, val }) =>
            or([
              eb('host', '=', host ?? ''),
              eb(fn('substr', ['host', val(-1 - (host ?? '').length)]), '=', `.${host}`),
            ]),
          ),
        )
        .orderBy('id', afterId === undefined ? 'desc' : 'asc')
        .limit(limit)
        .execute();
      const entries = rows.map(toEntry);
      if (afterId === undefined) entries.reverse();
      return { entries, oldestId: ends.oldest ?? 0, newestId: ends.newest ?? 0 };
    },
  };
}

function toRow(sandboxId: SandboxId, id: number, entry: EgressEntry): Insertable<Tables['egress_log']> {
  const { at, allowed, bytesSent, bytesReceived, durationMs, kind, host, port, address, rule, outcome, reason } = entry;
  return {
    sandbox_id: sandboxId,
    id,
    at: at.toISOString(),
    kind,
    host,
    port,
    address,
    allowed: allowed ? 1 : 0,
    rule,
    outcome,
    reason,
    bytes_sent: bytesSent,
    bytes_received: bytesReceived,
    duration_ms: durationMs,
    repeated: entry.repeated,
  };
}

function toEntry(row: Selectable<Tables['egress_log']>): StoredEgressEntry {
  return {
    id: row.id,
    at: new Date(row.at),
    kind: row.kind as StoredEgressEntry['kind'],
    host: row.host,
    port: row.port,
    address: row.address,
    allowed: row.allowed === 1,
    rule: row.rule,
    outcome: row.outcome as StoredEgressEntry['outcome'],
    reason: row.reason,
    bytesSent: row.bytes_sent,
    bytesReceived: row.bytes_received,
    durationMs: row.duration_ms,
    repeated: row.repeated,
  };
}

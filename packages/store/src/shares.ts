/** Shares in the database; implements core's `ShareRecords`. */
import {
  type AccountId,
  ENDED_STATES,
  type SandboxId,
  type ShareChange,
  type ShareId,
  type ShareRecord,
  type ShareRecords,
} from '@instavm/core';
import type { Selectable, Updateable } from 'kysely';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

export function shareRecords(database: Database): ShareRecords {
  return {
    async open(record) {
      const row = {
        id: record.id,
        account_id: record.accountId,
        sandbox_id: record.sandboxId,
        port: record.port,
        is_public: Number(record.isPublic),
        rewrite_host: Number(record.rewriteHost),
        created_at: record.createdAt.toISOString(),
        revoked_at: null,
      };
      const kept = await database
        .insertInto('shares')
        .values(row)
        // Changes nothing, and so gives the row that is there.
        .onConflict((conflict) =>
          conflict
            .columns(['sandbox_id', 'port'])
            .where('revoked_at', 'is', null)
            .doUpdateSet(({ ref }) => ({ port: ref('shares.port') })),
        )
        .returningAll()
        .executeTakeFirstOrThrow();
      return toRecord(kept);
    },
    async find(id) {
      const row = await database.selectFrom('shares').selectAll().where('id', '=', id).executeTakeFirst();
      return row && toRecord(row);
    },
    async list(accountId, limit, sandboxId) {
      const rows = await database
        .selectFrom('shares')
        .innerJoin('sandboxes', 'sandboxes.id', 'shares.sandbox_id')
        .selectAll('shares')
        .where('shares.account_id', '=', accountId)
        .where('shares.revoked_at', 'is', null)
        .where('sandboxes.state', 'not in', ENDED_STATES)
        .$if(sandboxId !== undefined, (query) => query.where('shares.sandbox_id', '=', sandboxId as SandboxId))
        .orderBy('shares.created_at', 'desc')
        .orderBy('shares.id')
        .limit(limit)
        .execute();
      return rows.map(toRecord);
    },
    update: (id, change) =>
      database.transaction().execute(async (transaction) => {
        const before = await transaction
          .selectFrom('shares')
          .selectAll()
          .where('id', '=', id)
          .where('revoked_at', 'is', null)
          .executeTakeFirst();
        if (before === undefined) return undefined;
        await transaction.updateTable('shares').set(columnsOf(change)).where('id', '=', id).execute();
        return toRecord(before);
      }),
  };
}

function columnsOf(change: ShareChange | { readonly revokedAt: Date }): Updateable<Tables['shares']> {
  if ('revokedAt' in change) return { revoked_at: change.revokedAt.toISOString() };
  const { isPublic, rewriteHost } = change;
  return {
    ...(isPublic === undefined ? {} : { is_public: Number(isPublic) }),
    ...(rewriteHost === undefined ? {} : { rewrite_host: Number(rewriteHost) }),
  };
}

const toRecord = (row: Selectable<Tables['shares']>): ShareRecord => ({
  id: row.id as ShareId,
  accountId: row.account_id as AccountId,
  sandboxId: row.sandbox_id as SandboxId,
  port: row.port,
  isPublic: row.is_public === 1,
  rewriteHost: row.rewrite_host === 1,
  createdAt: new Date(row.created_at),
  revokedAt: row.revoked_at === null ? null : new Date(row.revoked_at),
});

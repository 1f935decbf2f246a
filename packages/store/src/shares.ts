/** Shares in the database; implements core's `ShareRecords`. */
import {
  type AccountId,
  ENDED_STATES,
  type NewAuditEvent,
  type SandboxId,
  type ShareChange,
  type ShareId,
  type ShareRecord,
  type ShareRecords,
} from '@instavm/core';
import type { Kysely, Selectable, Updateable } from 'kysely';
import { AuditWriter } from './audit.ts';
import { instant } from './columns.ts';
import type { Database } from './database.ts';
import { comesAfter } from './paging.ts';
import type { Tables } from './schema.ts';

export function shareRecords(database: Database, audit = new AuditWriter()): ShareRecords {
  return {
    async open(record, most) {
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
      return database.transaction().execute(async (transaction) => {
        const { open } = await openOf(transaction, record.accountId)
          .select((select) => select.fn.countAll<number>().as('open'))
          .where((where) =>
            where.not(
              where.and([where('shares.sandbox_id', '=', row.sandbox_id), where('shares.port', '=', row.port)]),
            ),
          )
          .executeTakeFirstOrThrow();
        if (open >= most) return undefined;
        const kept = await transaction
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
        const share = toRecord(kept);
        if (share.id === record.id)
          await audit.write(transaction, { ...about(share), type: 'share.created', ...opened(share) });
        return share;
      });
    },
    async find(id) {
      const row = await database.selectFrom('shares').selectAll().where('id', '=', id).executeTakeFirst();
      return row && toRecord(row);
    },
    async list(accountId, { limit, sandboxId, before }) {
      let query = openOf(database, accountId).selectAll('shares');
      if (sandboxId) query = query.where('shares.sandbox_id', '=', sandboxId);
      if (before) query = query.where(comesAfter(before, { id: 'shares.id', createdAt: 'shares.created_at' }));
      const rows = await query.orderBy('shares.created_at', 'desc').orderBy('shares.id').limit(limit).execute();
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
        const share = toRecord(before);
        await audit.write(transaction, changeEvent(share, change));
        return share;
      }),
    revokeLink: (id, linkId, at, forget, most) =>
      database.transaction().execute(async (transaction) => {
        const old = transaction.deleteFrom('revoked_links').where('revoked_at', '<', forget.toISOString());
        await old.where('share_id', '=', id).execute();
        const { revoked } = await transaction
          .selectFrom('revoked_links')
          .select((select) => select.fn.countAll<number>().as('revoked'))
          .where('share_id', '=', id)
          .where('link_id', '!=', linkId)
          .executeTakeFirstOrThrow();
        if (revoked >= most) return false;
        await transaction
          .insertInto('revoked_links')
          .values({ share_id: id, link_id: linkId, revoked_at: at.toISOString() })
          .onConflict((conflict) => conflict.columns(['share_id', 'link_id']).doNothing())
          .execute();
        const share = await transaction.selectFrom('shares').selectAll().where('id', '=', id).executeTakeFirst();
        if (share !== undefined) {
          const common = about(toRecord(share));
          const details = { link_id: linkId };
          await audit.write(transaction, { ...common, type: 'share.link_revoked', status: 'success', details });
        }
        return true;
      }),
    async isLinkRevoked(id, linkId) {
      const found = database.selectFrom('revoked_links').select('link_id').where('share_id', '=', id);
      return (await found.where('link_id', '=', linkId).executeTakeFirst()) !== undefined;
    },
  };
}

/** Open ones of sandboxes that have not ended. */
const openOf = (database: Kysely<Tables>, accountId: AccountId) =>
  database
    .selectFrom('shares')
    .innerJoin('sandboxes', 'sandboxes.id', 'shares.sandbox_id')
    .where('shares.account_id', '=', accountId)
    .where('shares.revoked_at', 'is', null)
    .where('sandboxes.state', 'not in', ENDED_STATES);

const about = ({ id, accountId, sandboxId }: ShareRecord) => ({
  ...{ accountId, sandboxId },
  resource: { type: 'share', id },
});

const opened = ({ port, isPublic }: ShareRecord) => ({
  status: 'success' as const,
  details: { port, is_public: isPublic },
});

function changeEvent(before: ShareRecord, change: ShareChange | { readonly revokedAt: Date }): NewAuditEvent {
  const { port } = before;
  if ('revokedAt' in change) return { ...about(before), type: 'share.revoked', status: 'success', details: { port } };
  const { isPublic: is_public, rewriteHost: rewrite_host } = change;
  const details = {
    port,
    ...(is_public !== undefined && { is_public }),
    ...(rewrite_host !== undefined && { rewrite_host }),
  };
  return { ...about(before), type: 'share.changed', status: 'success', details };
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
  revokedAt: instant(row.revoked_at),
});

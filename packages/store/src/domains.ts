/** Custom domains in the database; implements core's `DomainRecords`. */
import {
  type AccountId,
  DOMAIN_MOVES,
  type DomainName,
  type DomainRecord,
  type DomainRecords,
  type DomainStatus,
  HELD_STATUSES,
  type NewAuditEvent,
  type ShareId,
  takenByOther,
} from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import type { Selectable, Transaction } from 'kysely';
import { AuditWriter } from './audit.ts';
import { instant, optionalJsonColumn } from './columns.ts';
import type { Database } from './database.ts';
import type { Tables } from './schema.ts';

export function domainRecords(database: Database, audit = new AuditWriter()): DomainRecords {
  const held = (from: Database | Transaction<Tables>, domain: string) =>
    from
      .selectFrom('custom_domains')
      .selectAll()
      .where('domain', '=', domain)
      .where('status', 'in', HELD_STATUSES)
      .executeTakeFirst();
  return {
    insert: (record, most) =>
      database.transaction().execute(async (transaction) => {
        const ofAccount = transaction.selectFrom('custom_domains').where('account_id', '=', record.accountId);
        const there = await ofAccount.selectAll().where('domain', '=', record.domain).executeTakeFirst();
        if (there !== undefined) return toRecord(there);
        const { count } = await ofAccount
          .select(({ fn }) => fn.countAll<number>().as('count'))
          .executeTakeFirstOrThrow();
        if (count >= most) {
          const hint = 'Delete custom domains that are no longer needed.';
          throw new InstaVMError('quota_exceeded', `this account has ${most} custom domains, the most it may have`, {
            hint,
          });
        }
        const row = await transaction
          .insertInto('custom_domains')
          .values({
            account_id: record.accountId,
            domain: record.domain,
            share_id: record.shareId,
            status: record.status,
            failure: record.failure && JSON.stringify(record.failure),
            verification_token: record.verificationToken,
            dns_provider: record.dnsProvider,
            created_at: record.createdAt.toISOString(),
            issued_at: record.issuedAt?.toISOString() ?? null,
          })
          .returningAll()
          .executeTakeFirstOrThrow();
        const kept = toRecord(row);
        await audit.write(transaction, { ...about(kept), type: 'domain.added', status: 'success' });
        return kept;
      }),
    async find(id) {
      const row = await database.selectFrom('custom_domains').selectAll().where('id', '=', id).executeTakeFirst();
      return row && toRecord(row);
    },
    async findHeld(domain) {
      const row = await held(database, domain);
      return row && toRecord(row);
    },
    async list(accountId, limit) {
      const rows = await database
        .selectFrom('custom_domains')
        .selectAll()
        .where('account_id', '=', accountId)
        .orderBy('id', 'desc')
        .limit(limit)
        .execute();
      return rows.map(toRecord);
    },
    async listByStatus(status) {
      const rows = await database.selectFrom('custom_domains').selectAll().where('status', '=', status).execute();
      return rows.map(toRecord);
    },
    move: (id, move) =>
      database.transaction().execute(async (transaction) => {
        const from = DOMAIN_MOVES[move.status];
        const may = await transaction
          .selectFrom('custom_domains')
          .select('domain')
          .where('id', '=', id)
          .where('status', 'in', from)
          .executeTakeFirst();
        if (may === undefined) return undefined;
        if (move.status === 'verified' && (await held(transaction, may.domain)) !== undefined)
          throw takenByOther(may.domain);
        const columns = {
          status: move.status,
          failure: move.status === 'failed' ? JSON.stringify(move.failure) : null,
          issued_at: move.status === 'issued' ? move.issuedAt.toISOString() : null,
        };
        const row = await transaction
          .updateTable('custom_domains')
          .set(columns)
          .where('id', '=', id)
          .returningAll()
          .executeTakeFirstOrThrow();
        const moved = toRecord(row);
        await audit.write(transaction, ...movedEvents(moved));
        return moved;
      }),
    remove: (id) =>
      database.transaction().execute(async (transaction) => {
        const row = await transaction
          .deleteFrom('custom_domains')
          .where('id', '=', id)
          .returningAll()
          .executeTakeFirst();
        if (row === undefined) return;
        await audit.write(transaction, { ...about(toRecord(row)), type: 'domain.removed', status: 'success' });
      }),
  };
}

const about = ({ id, accountId, domain, shareId }: DomainRecord) => ({
  accountId,
  resource: { type: 'domain', id: String(id) },
  details: { domain, share_id: shareId },
});

function movedEvents(record: DomainRecord): NewAuditEvent[] {
  const { status, failure } = record;
  if (status === 'pending') return [];
  const outcome = status === 'failed' ? 'failure' : 'success';
  return [{ ...about(record), type: `domain.${status}`, status: outcome, error: failure?.message ?? null }];
}

const toRecord = (row: Selectable<Tables['custom_domains']>): DomainRecord => ({
  id: row.id,
  accountId: row.account_id as AccountId,
  domain: row.domain as DomainName,
  shareId: row.share_id as ShareId,
  status: row.status as DomainStatus,
  failure: optionalJsonColumn(row.failure, 'custom_domains.failure', row.id),
  verificationToken: row.verification_token,
  dnsProvider: row.dns_provider,
  createdAt: new Date(row.created_at),
  issuedAt: instant(row.issued_at),
});

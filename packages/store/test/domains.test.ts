/** Custom domains kept in a real database. */
import type { AccountId, DomainMove, DomainName, DomainRecord, DomainStatus, ShareId } from '@instavm/core';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Database, domainRecords, openDatabase } from '../src/index.ts';

const [a, b] = ['acct_a', 'acct_b'] as AccountId[] as [AccountId, AccountId];
const MOST = 3;

describe('custom domains', () => {
  let database: Database;
  beforeEach(async () => {
    database = await openDatabase(':memory:');
    await sql`insert into accounts (id, email, name, created_at)
      values (${a}, 'a@y', 'A', '2026-01-01'), (${b}, 'b@y', 'B', '2026-01-01')`.execute(database);
  });
  afterEach(() => database.destroy());

  const wanted = (domain: string, accountId = a): Omit<DomainRecord, 'id'> => ({
    ...{ accountId, domain: domain as DomainName, shareId: 'shraaaaaaaaaaaaaaaaaaaa' as ShareId },
    ...{ status: 'pending', failure: null, verificationToken: `t ${domain}`, dnsProvider: 'manual' },
    ...{ createdAt: new Date('2026-01-01'), issuedAt: null },
  });
  const insert = (domain: string, accountId = a) => domainRecords(database).insert(wanted(domain, accountId), MOST);
  const MOVES: Record<DomainStatus, DomainMove> = {
    pending: { status: 'pending' },
    verified: { status: 'verified' },
    issued: { status: 'issued', issuedAt: new Date('2026-01-02') },
    failed: { status: 'failed', failure: { code: 'domain_unverified', message: 'nothing "there"' } },
  };
  async function moved(id: number, ...statuses: DomainStatus[]): Promise<DomainRecord | undefined> {
    let record: DomainRecord | undefined;
    for (const status of statuses) record = await domainRecords(database).move(id, MOVES[status]);
    return record;
  }

  it('are given back as they were given, numbered, and one per account and name', async () => {
    const records = domainRecords(database);
    const made = await insert('a.example.com');
    expect(made).toEqual({ id: expect.any(Number), ...wanted('a.example.com') });
    expect(await records.find(made.id)).toEqual(made);
    const again = { ...wanted('a.example.com'), verificationToken: 'other' };
    expect(await records.insert(again, MOST)).toEqual(made);
    expect((await insert('a.example.com', b)).id).not.toBe(made.id);
  });

  it('are as many as an account may have, also when many ask at once', async () => {
    const asked = await Promise.allSettled(Array.from({ length: 10 }, (_, n) => insert(`n${n}.example.com`)));
    const refused = asked.filter((one) => one.status === 'rejected').map(({ reason }) => reason.code);
    expect(refused).toEqual(Array.from({ length: 10 - MOST }, () => 'quota_exceeded'));
    expect((await insert('n0.example.com')).domain).toBe('n0.example.com');
    expect((await insert('other.example.com', b)).accountId).toBe(b);
  });

  it('move only as their statuses allow', async () => {
    const ways: Record<DomainStatus, DomainStatus[]> = {
      pending: [],
      verified: ['verified'],
      issued: ['verified', 'issued'],
      failed: ['failed'],
    };
    const allowed = ['pending>verified', 'pending>failed', 'verified>issued', 'verified>failed', 'failed>pending'];
    for (const [from, way] of Object.entries(ways)) {
      for (const to of Object.keys(ways) as DomainStatus[]) {
        const { id } = await insert('a.example.com');
        await moved(id, ...way);
        const record = await moved(id, to);
        const isAllowed = allowed.includes(`${from}>${to}`);
        expect(record !== undefined, `${from}>${to}`).toBe(isAllowed);
        expect((await domainRecords(database).find(id))?.status).toBe(isAllowed ? to : from);
        await domainRecords(database).remove(id);
      }
    }
    expect(await moved(4711, 'verified')).toBeUndefined();
  });

  it('say why they failed until they are tried again, and when they were issued', async () => {
    const { id } = await insert('a.example.com');
    expect((await moved(id, 'failed'))?.failure).toEqual({ code: 'domain_unverified', message: 'nothing "there"' });
    expect(await moved(id, 'pending')).toMatchObject({ status: 'pending', failure: null });
    expect(await moved(id, 'verified', 'issued')).toMatchObject({ issuedAt: new Date('2026-01-02'), failure: null });
  });

  it('are held by one account at most, until that lets go', async () => {
    const records = domainRecords(database);
    const [first, second] = [await insert('a.example.com'), await insert('a.example.com', b)];
    expect(await records.findHeld('a.example.com')).toBeUndefined();
    await moved(first.id, 'verified');
    await expect(moved(second.id, 'verified')).rejects.toMatchObject({ code: 'domain_taken', status: 409 });
    expect((await records.find(second.id))?.status).toBe('pending');
    expect((await records.findHeld('a.example.com'))?.id).toBe(first.id);
    await moved(first.id, 'issued');
    expect((await records.findHeld('a.example.com'))?.id).toBe(first.id);
    await records.remove(first.id);
    expect((await moved(second.id, 'verified'))?.status).toBe('verified');
    // The index says so too, whoever writes.
    await insert('a.example.com');
    const rude = sql`update custom_domains set status = 'issued' where domain = 'a.example.com'`.execute(database);
    await expect(rude).rejects.toThrow(/UNIQUE/);
  });

  it('are listed newest first, of their account, and by status', async () => {
    const records = domainRecords(database);
    const [one, two] = [await insert('a.example.com'), await insert('b.example.com')];
    const foreign = await insert('c.example.com', b);
    expect(await records.list(a, 9)).toEqual([two, one]);
    expect(await records.list(a, 1)).toEqual([two]);
    await moved(one.id, 'verified');
    await moved(foreign.id, 'verified');
    expect((await records.listByStatus('verified')).map(({ id }) => id)).toEqual([one.id, foreign.id]);
  });

  it('leave a number that nobody gets again', async () => {
    const { id } = await insert('a.example.com');
    await domainRecords(database).remove(id);
    await domainRecords(database).remove(id);
    expect(await domainRecords(database).find(id)).toBeUndefined();
    expect((await insert('a.example.com')).id).toBeGreaterThan(id);
  });

  it('belong to an account that exists', async () => {
    await expect(insert('a.example.com', 'acct_nobody' as AccountId)).rejects.toThrow(/FOREIGN KEY/);
  });
});

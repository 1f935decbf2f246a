/** Shares kept in a real database. */
import {
  type AccountId,
  type LinkId,
  newLinkId,
  newSandboxId,
  newShareId,
  type SandboxId,
  type ShareId,
  type ShareRecord,
} from '@instavm/core';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Database, openDatabase, sandboxRecords, shareRecords } from '../src/index.ts';

const account = 'acct_a' as AccountId;

describe('shares', () => {
  let database: Database;
  let sandboxId: SandboxId;
  beforeEach(async () => {
    database = await openDatabase(':memory:');
    await sql`insert into accounts (id, email, name, created_at) values ('acct_a', 'x@y', 'X', '2026-01-01')`.execute(
      database,
    );
    sandboxId = await sandbox();
  });
  afterEach(() => database.destroy());

  async function sandbox(state = 'running'): Promise<SandboxId> {
    const id = newSandboxId();
    await sql`insert into sandboxes (id, account_id, state, epoch, memory_mib, vcpus, ttl_seconds, created_at, ended_at, metadata, env)
      values (${id}, 'acct_a', ${state}, 1, 512, 2, 300, '2026-01-01', '2026-01-01', '{}', '{}')`.execute(database);
    return id;
  }
  /** Opened as if there were no end to them. */
  const storedShares = () => {
    const records = shareRecords(database);
    const open = async (record: ShareRecord) => (await records.open(record, 1_000)) as ShareRecord;
    return { ...records, open };
  };
  let made = 0;
  const share = (fields: Partial<ShareRecord> = {}): ShareRecord => ({
    id: newShareId(),
    accountId: account,
    sandboxId,
    port: 8000,
    isPublic: false,
    rewriteHost: false,
    createdAt: new Date(Date.UTC(2026, 0, 1) + 1000 * made++),
    revokedAt: null,
    ...fields,
  });

  it('are one per port until they are revoked, then another', async () => {
    const shares = storedShares();
    const first = share();
    expect(await shares.open(first)).toEqual(first);
    expect(await shares.open(share())).toEqual(first);
    expect((await shares.open(share({ port: 8001 }))).id).not.toBe(first.id);
    expect(await shares.update(first.id, { revokedAt: new Date('2026-01-02') })).toEqual(first);
    expect(await shares.find(first.id)).toEqual({ ...first, revokedAt: new Date('2026-01-02') });
    const second = share();
    expect(await shares.open(second)).toEqual(second);
  });

  it('are one also when many ask at once', async () => {
    const shares = storedShares();
    const opened = await Promise.all(Array.from({ length: 20 }, () => shares.open(share())));
    expect(new Set(opened.map(({ id }) => id)).size).toBe(1);
  });

  it('tell what they were when they are changed, and are not changed by being asked for', async () => {
    const shares = storedShares();
    const made = await shares.open(share());
    expect(await shares.update(made.id, { isPublic: true })).toEqual(made);
    expect(await shares.open(share({ isPublic: false }))).toEqual({ ...made, isPublic: true });
    expect(await shares.update(made.id, { isPublic: true })).toEqual({ ...made, isPublic: true });
    await shares.update(made.id, { rewriteHost: true });
    expect(await shares.find(made.id)).toEqual({ ...made, isPublic: true, rewriteHost: true });
  });

  it('cannot be changed when they are revoked, nor come back', async () => {
    const shares = storedShares();
    const { id } = await shares.open(share());
    await shares.update(id, { revokedAt: new Date('2026-01-02') });
    expect(await shares.update(id, { isPublic: true })).toBeUndefined();
    expect(await shares.update(id, { revokedAt: new Date('2026-01-03') })).toBeUndefined();
    expect(await shares.find(id)).toMatchObject({ isPublic: false, revokedAt: new Date('2026-01-02') });
    expect(await shares.update(newShareId(), { isPublic: true })).toBeUndefined();
  });

  it('are listed newest first, without revoked ones and those of ended sandboxes', async () => {
    const shares = storedShares();
    const other = await sandbox('suspended');
    const ended = await sandbox('stopped');
    const [a, b, c] = [share(), share({ port: 2 }), share({ sandboxId: other })];
    for (const each of [a, b, c, share({ sandboxId: ended })]) await shares.open(each);
    const ports = async (limit: number, of?: SandboxId) =>
      (await shares.list(account, { limit, sandboxId: of })).map(({ id }) => id);
    expect(await ports(9)).toEqual([c.id, b.id, a.id]);
    expect(await ports(2)).toEqual([c.id, b.id]);
    expect(await ports(9, sandboxId)).toEqual([b.id, a.id]);
    await shares.update(b.id, { revokedAt: new Date() });
    expect(await ports(9, sandboxId)).toEqual([a.id]);
    expect(await ports(9, ended)).toEqual([]);
    expect(await shares.list('acct_b' as AccountId, { limit: 9 })).toEqual([]);
  });

  it('are listed from any of them on, also from one that is revoked, though some are of the same instant', async () => {
    const shares = storedShares();
    const createdAt = new Date('2026-01-01');
    for (let port = 1; port <= 5; port++) await shares.open(share({ port, createdAt }));
    const all = await shares.list(account, { limit: 9 });
    for (const [index, before] of all.entries())
      expect(await shares.list(account, { limit: 2, before })).toEqual(all.slice(index + 1, index + 3));
    const [, second] = all;
    await shares.update(second?.id as ShareId, { revokedAt: new Date() });
    expect(await shares.list(account, { limit: 1, before: second })).toEqual([all[2]]);
  });

  it('are no more than an account may have, of which ended and revoked ones are none', async () => {
    const records = shareRecords(database);
    const first = share();
    await records.open(first, 2);
    await records.open(share({ port: 2 }), 2);
    expect(await records.open(share({ port: 3 }), 2)).toBeUndefined();
    expect(await records.open(share(), 2)).toEqual(first);
    await records.update(first.id, { revokedAt: new Date() });
    expect(await records.open(share({ port: 3 }), 2)).toBeDefined();
    expect(await records.open(share({ port: 4 }), 2)).toBeUndefined();
    await sql`update sandboxes set state = 'stopped'`.execute(database);
    expect(await records.open(share({ sandboxId: await sandbox() }), 2)).toBeDefined();
  });

  it('remember links that were taken back, as long as one is good and as many as they may', async () => {
    const records = shareRecords(database);
    const [{ id }, other] = [share(), share({ port: 2 })];
    const [one, two, three] = [newLinkId(), newLinkId(), newLinkId()];
    const day = (of: number): Date => new Date(Date.UTC(2026, 0, of));
    const revoke = (link: LinkId, at: number) => records.revokeLink(id, link, day(at), day(at - 7), 2);
    expect(await records.isLinkRevoked(id, one)).toBe(false);
    for (const link of [one, one, two]) expect(await revoke(link, 10)).toBe(true);
    expect(await records.isLinkRevoked(id, one)).toBe(true);
    expect(await records.isLinkRevoked(other.id, one)).toBe(false);
    expect(await revoke(three, 11)).toBe(false);
    expect(await records.isLinkRevoked(id, three)).toBe(false);
    expect(await revoke(two, 11)).toBe(true);
    expect(await revoke(three, 18)).toBe(true);
    expect(await records.isLinkRevoked(id, one)).toBe(false);
  });

  it('go with the record of their sandbox', async () => {
    const shares = storedShares();
    const { id } = await shares.open(share({ sandboxId: await sandbox('failed') }));
    const kept = await shares.open(share());
    const link = newLinkId();
    for (const each of [id, kept.id]) await shares.revokeLink(each, link, new Date(), new Date(0), 9);
    expect(await sandboxRecords(database).prune(new Date('2027-01-01'))).toBe(1);
    expect(await shares.find(id)).toBeUndefined();
    expect(await shares.find(kept.id)).toEqual(kept);
    expect([await shares.isLinkRevoked(id, link), await shares.isLinkRevoked(kept.id, link)]).toEqual([false, true]);
  });
});

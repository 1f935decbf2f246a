/** What guests tried to reach, kept in a real database. */
import { newSandboxId } from '@instavm/core';
import { egressEntry } from '@instavm/testing';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type Database, EGRESS_ROWS_KEPT, egressLog, openDatabase, sandboxRecords } from '../src/index.ts';

describe('the egress log', () => {
  let database: Database;
  beforeEach(async () => {
    database = await openDatabase(':memory:');
  });
  afterEach(() => database.destroy());
  const id = newSandboxId();

  it('gives rows back as they were written, numbered for each sandbox', async () => {
    const log = egressLog(database);
    const large = egressEntry({ at: new Date('2026-01-01T00:00:00.123Z'), bytesReceived: 2 ** 40 });
    const denied = egressEntry({
      allowed: false,
      port: null,
      address: null,
      reason: 'no',
      durationMs: null,
      repeated: 7,
    });
    await log.append(id, [large, denied]);
    await log.append(newSandboxId(), [egressEntry()]);
    await log.append(id, [egressEntry({ host: 'last' })]);
    expect(await log.list(id, { limit: 10 })).toEqual({
      entries: [
        { id: 1, ...large },
        { id: 2, ...denied },
        { id: 3, ...egressEntry({ host: 'last' }) },
      ],
      oldestId: 1,
      newestId: 3,
    });
    expect(await log.list(newSandboxId(), { limit: 10 })).toEqual({ entries: [], oldestId: 0, newestId: 0 });
  });

  it('pages from the end backwards, and from a row onwards', async () => {
    const log = egressLog(database);
    await log.append(
      id,
      Array.from({ length: 9 }, () => egressEntry()),
    );
    const ids = async (query: object) => (await log.list(id, { limit: 3, ...query })).entries.map((row) => row.id);
    expect(await ids({})).toEqual([7, 8, 9]);
    expect(await ids({ beforeId: 7 })).toEqual([4, 5, 6]);
    expect(await ids({ afterId: 2 })).toEqual([3, 4, 5]);
    expect(await ids({ afterId: 0, beforeId: 3 })).toEqual([1, 2]);
    expect(await ids({ afterId: 9 })).toEqual([]);
  });

  it('finds by verdict, and by a name with those below it', async () => {
    const log = egressLog(database);
    const hosts = ['example.com', 'a.example.com', 'notexample.com', 'example.com.evil.test', 'a%.test'];
    await log.append(
      id,
      hosts.map((host, index) => egressEntry({ host, allowed: index !== 1 })),
    );
    const found = async (query: object) => (await log.list(id, { limit: 9, ...query })).entries.map((row) => row.host);
    expect(await found({ host: 'example.com' })).toEqual(['example.com', 'a.example.com']);
    expect(await found({ host: '%.test' })).toEqual([]);
    expect(await found({ verdict: 'denied' })).toEqual(['a.example.com']);
    expect(await found({ verdict: 'allowed', host: 'example.com' })).toEqual(['example.com']);
  });

  it('forgets the oldest beyond its bound, and goes on counting', async () => {
    const log = egressLog(database);
    const many = Array.from({ length: EGRESS_ROWS_KEPT }, () => egressEntry());
    await log.append(id, many);
    await log.append(id, [egressEntry(), egressEntry()]);
    const { oldestId, newestId } = await log.list(id, { limit: 1 });
    expect([oldestId, newestId]).toEqual([3, EGRESS_ROWS_KEPT + 2]);
  });

  it('goes with the record of its sandbox', async () => {
    const log = egressLog(database);
    await log.append(id, [egressEntry()]);
    await sql`insert into accounts (id, email, name, created_at) values ('acct_a', 'x@y', 'X', '2026-01-01')`.execute(
      database,
    );
    await sql`insert into sandboxes (id, account_id, state, epoch, memory_mib, vcpus, ttl_seconds, created_at, ended_at, metadata, env)
      values (${id}, 'acct_a', 'stopped', 1, 512, 2, 300, '2026-01-01', '2026-01-01', '{}', '{}')`.execute(database);
    expect(await sandboxRecords(database).prune(new Date('2025-01-01'))).toBe(0);
    expect((await log.list(id, { limit: 1 })).entries).toHaveLength(1);
    expect(await sandboxRecords(database).prune(new Date('2027-01-01'))).toBe(1);
    expect((await log.list(id, { limit: 1 })).entries).toEqual([]);
  });
});

/** Accounts, keys, sandbox records and the lock, in a real database. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { AccountId, SandboxRecord } from '@instavm/core';
import { newIncarnationId, newSandboxId } from '@instavm/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Accounts, type Database, openDatabase, sandboxRecords, takeExclusiveLock } from '../src/index.ts';

describe('the store', () => {
  let directory: string;
  let database: Database;
  let accountId: AccountId;
  let key = '';

  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-store-test-'));
    database = await openDatabase(join(directory, 'deep', 'er.db'));
    const keep = (given: string): void => {
      key = given;
    };
    accountId = (await new Accounts(database).createWithKey('a@b', 'A', 'first', keep)).id;
  });
  afterEach(async () => {
    await database.destroy();
    await rm(directory, { recursive: true, force: true });
  });

  const record = (fields: Partial<SandboxRecord> = {}): SandboxRecord => ({
    id: newSandboxId(),
    accountId,
    state: 'running',
    snapshotId: null,
    suspension: null,
    autoSuspend: false,
    autoResume: true,
    snapshotOnExpiry: null,
    stateReason: null,
    endCause: null,
    incarnationId: newIncarnationId(),
    epoch: 1,
    size: { memoryMib: 512, vcpus: 2 },
    ttlSeconds: 300,
    createdAt: new Date('2026-01-01T00:00:00.123Z'),
    expiresAt: new Date('2026-01-01T00:05:00Z'),
    startedAt: new Date('2026-01-01T00:00:01Z'),
    endedAt: null,
    metadata: { deep: { er: [1, null] } },
    env: { A: 'b' },
    egress: { allowHttp: true, allowHttps: false, allowPublicRepos: true, allowedDomains: ['x'], allowedCidrs: [] },
    ...fields,
  });

  it('finds an account by its key and by no other', async () => {
    const accounts = new Accounts(database);
    expect((await accounts.findByKey(key))?.id).toBe(accountId);
    expect(await accounts.findByKey(`${key}x`)).toBeUndefined();
    expect(await accounts.findByKey('')).toBeUndefined();
  });

  it('makes no account when its key cannot be kept', async () => {
    const accounts = new Accounts(database);
    const refuse = (): void => {
      throw new Error('no room');
    };
    await expect(accounts.createWithKey('c@d', 'C', 'first', refuse)).rejects.toThrow('no room');
    expect(await accounts.count()).toBe(1);
  });

  it('gives a record back as it was given', async () => {
    const records = sandboxRecords(database);
    const written = record();
    await records.insert(written);
    expect(await records.find(written.id)).toEqual(written);
    expect((await records.findByIncarnation(written.incarnationId as never))?.id).toBe(written.id);
    expect(await records.find(newSandboxId())).toBeUndefined();
  });

  it('refuses a change by someone who missed an incarnation', async () => {
    const records = sandboxRecords(database);
    const written = record({ epoch: 3 });
    await records.insert(written);
    expect(await records.update(written.id, 2, { state: 'failed' })).toBe(false);
    expect((await records.find(written.id))?.state).toBe('running');
    expect(await records.update(written.id, 3, { state: 'stopped', expiresAt: null, endCause: 'expiry' })).toBe(true);
    expect(await records.find(written.id)).toMatchObject({ state: 'stopped', expiresAt: null, endCause: 'expiry' });
  });

  it('lists newest first, the living alone when asked, and each account its own', async () => {
    const records = sandboxRecords(database);
    const old = record({ createdAt: new Date('2025-01-01'), state: 'stopped' });
    const fresh = record({ createdAt: new Date('2026-02-01') });
    await records.insert(old);
    await records.insert(fresh);
    expect((await records.list(accountId, 10)).map(({ id }) => id)).toEqual([fresh.id, old.id]);
    expect((await records.list(accountId, 1)).map(({ id }) => id)).toEqual([fresh.id]);
    expect((await records.list(accountId, 10, true)).map(({ id }) => id)).toEqual([fresh.id]);
    expect(await records.list('acct_other' as AccountId, 10)).toEqual([]);
    expect((await records.listUnsettled()).map(({ id }) => id)).toEqual([fresh.id]);
  });

  it('forgets what ended long ago, and nothing that runs', async () => {
    const records = sandboxRecords(database);
    const long = record({ state: 'stopped', endedAt: new Date('2025-01-01') });
    const lately = record({ state: 'stopped', endedAt: new Date('2026-01-01') });
    for (const each of [long, lately, record()]) await records.insert(each);
    expect(await records.prune(new Date('2025-06-01'))).toBe(1);
    expect(await records.find(long.id)).toBeUndefined();
    expect(await records.find(lately.id)).toBeDefined();
  });

  it('opens an existing database again, with what is in it', async () => {
    await database.destroy();
    database = await openDatabase(join(directory, 'deep', 'er.db'));
    expect((await new Accounts(database).findByKey(key))?.email).toBe('a@b');
  });

  it('locks a path once', () => {
    const path = join(directory, 'lock');
    const release = takeExclusiveLock(path);
    expect(release).toBeDefined();
    expect(takeExclusiveLock(path)).toBeUndefined();
    release?.();
    const again = takeExclusiveLock(path);
    expect(again).toBeDefined();
    again?.();
  });
});

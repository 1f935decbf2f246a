/** Accounts, keys, sandbox records and the lock, in a real database. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { AccountId, SandboxRecord, SnapshotRecord, TemplateKey } from '@instavm/core';
import { DEFAULT_LIFECYCLE, newFilesId, newIncarnationId, newSandboxId, newSnapshotId } from '@instavm/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  Accounts,
  ApiKeys,
  type Database,
  openDatabase,
  sandboxRecords,
  snapshotRecords,
  takeExclusiveLock,
} from '../src/index.ts';

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
    lifecycle: { ...DEFAULT_LIFECYCLE, idleSuspendSeconds: 60 },
    savedIn: null,
    savedBytes: null,
    leaseLeftMs: null,
    snapshotId: null,
    egress: { allowHttp: true, allowHttps: false, allowPublicRepos: true, allowedDomains: ['x'], allowedCidrs: [] },
    ...fields,
  });

  it('finds an account by its key and by no other', async () => {
    const keys = new ApiKeys(database);
    expect((await keys.authenticate(key))?.account.id).toBe(accountId);
    expect(await keys.authenticate(`${key}x`)).toBeUndefined();
    expect(await keys.authenticate('')).toBeUndefined();
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
    expect((await records.list(accountId, { limit: 10 })).map(({ id }) => id)).toEqual([fresh.id, old.id]);
    expect((await records.list(accountId, { limit: 1 })).map(({ id }) => id)).toEqual([fresh.id]);
    expect((await records.list(accountId, { limit: 10, alive: true })).map(({ id }) => id)).toEqual([fresh.id]);
    expect(await records.list('acct_other' as AccountId, { limit: 10 })).toEqual([]);
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

  describe('of snapshots', () => {
    const snapshot = (fields: Partial<SnapshotRecord> = {}): SnapshotRecord => {
      const { size, ttlSeconds, metadata, env, egress, lifecycle } = record();
      const now = new Date('2026-01-01T00:00:00Z');
      return {
        id: newSnapshotId(),
        accountId,
        name: 'mine',
        status: 'ready',
        lastError: null,
        isTransient: false,
        sandboxId: newSandboxId(),
        incarnationId: newIncarnationId(),
        filesId: newFilesId(),
        spec: { size, ttlSeconds, metadata, env, egress, lifecycle },
        templateKey: 'k' as TemplateKey,
        sizeBytes: 123,
        createdAt: now,
        updatedAt: now,
        usedAt: now,
        ...fields,
      };
    };

    it('gives a record back as it was given, and changed as it was changed', async () => {
      const records = snapshotRecords(database);
      const written = snapshot({ status: 'building', templateKey: null, sizeBytes: null, name: null });
      await records.insert(written);
      expect(await records.find(written.id)).toEqual(written);
      const change = { status: 'ready', sizeBytes: 5, templateKey: 't' as TemplateKey, name: 'n' } as const;
      await records.update(written.id, change);
      expect(await records.find(written.id)).toEqual({ ...written, ...change });
      expect([await records.delete(written.id), await records.delete(written.id)]).toEqual([true, false]);
    });

    it('lists those of an account without what is only for a clone, and what a start has to settle', async () => {
      const records = snapshotRecords(database);
      const ready = snapshot();
      const building = snapshot({ status: 'building', createdAt: new Date('2026-02-01') });
      const transient = snapshot({ isTransient: true });
      for (const each of [ready, building, transient]) await records.insert(each);
      expect((await records.list(accountId, 10)).map(({ id }) => id)).toEqual([building.id, ready.id]);
      expect(await records.list('acct_other' as AccountId, 10)).toEqual([]);
      const unsettled = (await records.listUnsettled()).map(({ id }) => id);
      expect(new Set(unsettled)).toEqual(new Set([building.id, transient.id]));
    });

    it('finds those that nobody used, by the exact beginning of their name', async () => {
      const records = snapshotRecords(database);
      const old = new Date('2025-01-01');
      const found = snapshot({ name: 'sandbox-1', usedAt: old });
      const others = [
        snapshot({ name: 'sandbox-2' }),
        snapshot({ name: 'SANDBOX-3', usedAt: old }),
        snapshot({ name: null, usedAt: old }),
      ];
      for (const each of [found, ...others]) await records.insert(each);
      expect((await records.listUnused('sandbox-', new Date('2025-06-01'))).map(({ id }) => id)).toEqual([found.id]);
    });

    it('knows which files anyone refers to: a suspended sandbox, a snapshot, none that failed', async () => {
      const records = snapshotRecords(database);
      const [bySandbox, bySnapshot, failed] = [newFilesId(), newFilesId(), newFilesId()];
      await sandboxRecords(database).insert(record({ state: 'suspended', savedIn: bySandbox }));
      await records.insert(snapshot({ filesId: bySnapshot }));
      await records.insert(snapshot({ filesId: failed, status: 'failed' }));
      expect(await records.listFiles()).toEqual(new Set([bySandbox, bySnapshot]));
      expect(await Promise.all([bySandbox, bySnapshot, failed].map((id) => records.refersTo(id)))).toEqual([
        true,
        true,
        false,
      ]);
    });
  });

  it('finds a sandbox by every incarnation that it ever had, until it is forgotten', async () => {
    const records = sandboxRecords(database);
    const [first, second] = [newIncarnationId(), newIncarnationId()];
    const written = record({ incarnationId: first });
    await records.insert(written);
    await records.update(written.id, 1, { incarnationId: second, epoch: 2, state: 'stopped', endedAt: new Date(0) });
    for (const id of [first, second]) expect((await records.findByIncarnation(id))?.incarnationId).toBe(second);
    expect(await records.prune(new Date())).toBe(1);
    for (const id of [first, second]) expect(await records.findByIncarnation(id)).toBeUndefined();
  });

  it('says that it cannot be used while another program holds the file', async () => {
    const other = new DatabaseSync(join(directory, 'deep', 'er.db'));
    other.exec('BEGIN IMMEDIATE');
    await expect(sandboxRecords(database).insert(record())).rejects.toMatchObject({
      code: 'store_unavailable',
      details: { retryAfterMs: expect.any(Number) },
    });
    other.exec('ROLLBACK');
    other.close();
    await sandboxRecords(database).insert(record());
  });

  it('keeps no secret of a key, and takes the secret before a rotation no longer than its grace', async () => {
    const keys = new ApiKeys(database);
    const { key: made, secret } = await keys.create(accountId, { name: 'rotated' });
    const second = await keys.rotate(accountId, made.id, 60_000);
    const third = await keys.rotate(accountId, made.id, 60_000);
    const isValid = async (text = ''): Promise<boolean> => (await keys.authenticate(text)) !== undefined;
    // Only the last one has a grace.
    expect([await isValid(secret), await isValid(second?.secret), await isValid(third?.secret)]).toEqual([
      false,
      true,
      true,
    ]);
    const stored = JSON.stringify(await database.selectFrom('api_keys').selectAll().execute());
    for (const each of [secret, second?.secret ?? '', third?.secret ?? '']) expect(stored).not.toContain(each);
    expect(await keys.revoke(accountId, made.id)).toBe(true);
    expect([await isValid(second?.secret), await isValid(third?.secret)]).toEqual([false, false]);
    expect(await keys.revoke(accountId, made.id)).toBe(false);
    expect(await keys.rotate(accountId, made.id, 0)).toBeUndefined();
  });

  it('shows a key that is rotated with the beginning of that secret, whoever rotates or revokes it at once', async () => {
    const keys = new ApiKeys(database);
    const { key: made } = await keys.create(accountId, { name: 'rotated' });
    const [first, second, isRevoked] = await Promise.all([
      keys.rotate(accountId, made.id, 0),
      keys.rotate(accountId, made.id, 0),
      keys.revoke(accountId, made.id),
    ]);
    for (const shown of [first, second]) expect(shown?.secret.startsWith(shown.key.prefix)).toBe(true);
    expect(isRevoked).toBe(true);
  });

  it('names the row that is damaged, and guesses nothing', async () => {
    const kept = record();
    await sandboxRecords(database).insert(kept);
    const other = new DatabaseSync(join(directory, 'deep', 'er.db'));
    other.prepare('UPDATE sandboxes SET env = ? WHERE id = ?').run('{"A": ', kept.id);
    other.close();
    await expect(sandboxRecords(database).find(kept.id)).rejects.toMatchObject({
      code: 'data_incompatible',
      message: `the database is damaged: sandboxes.env of ${kept.id} is no JSON`,
    });
  });

  it('opens an existing database again, with what is in it', async () => {
    await database.destroy();
    database = await openDatabase(join(directory, 'deep', 'er.db'));
    expect((await new ApiKeys(database).authenticate(key))?.account.email).toBe('a@b');
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

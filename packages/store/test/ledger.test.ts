/** The ledger in a real database. */
import {
  type AccountId,
  DEFAULT_LIFECYCLE,
  type LedgerEntry,
  type MeteredRun,
  newFilesId,
  newIncarnationId,
  newSandboxId,
  newSnapshotId,
  type SandboxRecord,
  type SnapshotRecord,
  type TemplateKey,
} from '@instavm/core';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  Accounts,
  type Database,
  ledger,
  ledgerReader,
  openDatabase,
  sandboxRecords,
  snapshotRecords,
} from '../src/index.ts';

let database: Database;
let accountId: AccountId;
let otherId: AccountId;
beforeEach(async () => {
  database = await openDatabase(':memory:');
  const accounts = new Accounts(database);
  accountId = (await accounts.createWithKey('a@b', 'A', 'first', () => {})).id;
  otherId = (await accounts.createWithKey('c@d', 'C', 'first', () => {})).id;
});
afterEach(() => database.destroy());

const at = (text: string): Date => new Date(`2026-${text}Z`);
const entry = (key: string, fields: Partial<LedgerEntry> = {}): LedgerEntry => ({
  ...{ key, accountId, kind: 'vm_execution', microDollars: -7, resourceId: 'r', note: null },
  ...{ from: at('01-01T10:00:00'), to: at('01-01T11:00:00'), vcpuMs: 2_000, mibMs: 512_000, bytes: 0 },
  ...fields,
});
const run = (fields: Partial<MeteredRun> = {}): MeteredRun => ({
  ...{ incarnationId: newIncarnationId(), sandboxId: newSandboxId(), accountId, size: { vcpus: 2, memoryMib: 512 } },
  ...{ beganAt: at('01-01T10:00:00.123'), chargedUntil: at('01-01T11:00:00'), egressBytes: 9 },
  ...fields,
});
const sumOfRows = async (): Promise<number> =>
  (
    await sql<{ sum: number }>`select sum(micro_dollars) as sum from ledger where account_id = ${accountId}`.execute(
      database,
    )
  ).rows[0]?.sum ?? 0;

describe('the ledger', () => {
  it('has an entry once, whoever writes it how often, and a balance that is its sum', async () => {
    const book = ledger(database);
    expect(await book.balanceOf(accountId)).toBe(0);
    await book.add([entry('a', { kind: 'grant', microDollars: 50_000_000 }), entry('b')]);
    await book.add([
      entry('b', { microDollars: -1_000 }),
      entry('c'),
      entry('d', { accountId: otherId, microDollars: 3 }),
    ]);
    expect([await book.balanceOf(accountId), await book.balanceOf(otherId)]).toEqual([50_000_000 - 14, 3]);
    await book.add(Array.from({ length: 1_234 }, (_, index) => entry(`e${index}`)));
    expect(await book.balanceOf(accountId)).toBe(50_000_000 - 14 - 1_234 * 7);
    expect(await sumOfRows()).toBe(await book.balanceOf(accountId));
  });

  it('is only added to', async () => {
    await ledger(database).add([entry('a')]);
    await expect(database.updateTable('ledger').set({ micro_dollars: 1 }).execute()).rejects.toThrow('only added to');
    await expect(database.deleteFrom('ledger').execute()).rejects.toThrow('only added to');
  });

  it('tells what was charged and used, by hour and day', async () => {
    const book = ledger(database);
    const hour = (text: string) => ({ from: at(text), to: at(text) });
    await book.add([
      entry('g', { kind: 'grant', microDollars: 100, ...hour('01-01T00:00:00') }),
      entry('a', hour('01-01T10:00:00')),
      entry('b', hour('01-01T11:00:00')),
      entry('s', { kind: 'snapshot_storage', vcpuMs: 0, mibMs: 5, ...hour('01-01T11:00:00') }),
      entry('c', { kind: 'egress', vcpuMs: 0, mibMs: 0, bytes: 11, ...hour('01-02T10:00:00') }),
      entry('x', { accountId: otherId, ...hour('01-01T10:00:00') }),
    ]);
    const reader = ledgerReader(database);
    const all = { accountId, from: at('01-01T00:00:00'), to: at('02-01T00:00:00') };
    expect((await reader.charges(all, 3)).map(({ key }) => key)).toEqual(['c', 's', 'b']);
    expect((await reader.charges(all, 9, 'vm_execution')).map(({ key }) => key)).toEqual(['b', 'a']);
    expect(Object.fromEntries(await reader.used(all, 'day'))).toEqual({
      '2026-01-01': { microDollars: 21, vcpuMs: 4_000, mibMs: 1_024_000, storedMibMs: 5, egressBytes: 0 },
      '2026-01-02': { microDollars: 7, vcpuMs: 0, mibMs: 0, storedMibMs: 0, egressBytes: 11 },
    });
    const hours = await reader.used({ ...all, to: at('01-02T00:00:00') }, 'hour');
    expect([...hours.keys()]).toEqual(['2026-01-01T10', '2026-01-01T11']);
    expect(await reader.granted(all)).toBe(100);
  });
});

describe('what the meter leaves', () => {
  it('is what was committed last', async () => {
    const book = ledger(database);
    expect(await book.load()).toEqual({ watchedUntil: null, runs: [] });
    const [one, two] = [run(), run()];
    await book.commit({ watchedUntil: at('01-01T11:00:01'), entries: [entry('a')], runs: [one, two], ended: [] });
    const later = { ...one, chargedUntil: at('01-01T12:00:00'), egressBytes: 0 };
    await book.commit({
      watchedUntil: at('01-01T12:00:01'),
      entries: [entry('a')],
      runs: [later],
      ended: [two.incarnationId],
    });
    expect(await book.load()).toEqual({ watchedUntil: at('01-01T12:00:01'), runs: [later] });
    expect(await book.balanceOf(accountId)).toBe(-7);
  });

  it('is all of it or nothing', async () => {
    const book = ledger(database);
    const stranger = entry('s', { accountId: 'acct_nobody' as AccountId });
    const change = { watchedUntil: at('01-01T11:00:01'), entries: [entry('a'), stranger], runs: [run()], ended: [] };
    await expect(book.commit(change)).rejects.toThrow('FOREIGN KEY');
    expect(await book.load()).toEqual({ watchedUntil: null, runs: [] });
    expect(await book.balanceOf(accountId)).toBe(0);
  });
});

describe('what is stored', () => {
  it('is snapshots and what suspended sandboxes keep, shared files once', async () => {
    const spec = {
      size: { memoryMib: 512, vcpus: 2 },
      ttlSeconds: 300,
      metadata: {},
      env: {},
      egress: null,
      lifecycle: DEFAULT_LIFECYCLE,
    };
    const shared = newFilesId();
    const sandbox = (fields: Partial<SandboxRecord>): SandboxRecord => ({
      ...{ ...spec, id: newSandboxId(), accountId, state: 'suspended', stateReason: null, endCause: null, epoch: 1 },
      ...{ incarnationId: newIncarnationId(), createdAt: at('01-01T00:00:00'), expiresAt: null, startedAt: null },
      ...{ endedAt: at('01-03T00:00:00'), savedIn: newFilesId(), savedBytes: 100, leaseLeftMs: 1, snapshotId: null },
      ...fields,
    });
    const snapshot = (fields: Partial<SnapshotRecord>): SnapshotRecord => ({
      ...{ id: newSnapshotId(), accountId, name: null, status: 'ready', lastError: null, isTransient: false, spec },
      ...{ sandboxId: newSandboxId(), incarnationId: null, filesId: newFilesId(), templateKey: 'k' as TemplateKey },
      ...{
        sizeBytes: 7,
        createdAt: at('01-02T00:00:00'),
        updatedAt: at('01-02T00:00:00'),
        usedAt: at('01-02T00:00:00'),
      },
      ...fields,
    });
    const sandboxes = sandboxRecords(database);
    await sandboxes.insert(sandbox({ savedIn: shared }));
    await sandboxes.insert(sandbox({ accountId: otherId, savedBytes: 200 }));
    await sandboxes.insert(sandbox({ state: 'running', savedBytes: 300 }));
    const snapshots = snapshotRecords(database);
    await snapshots.insert(snapshot({}));
    await snapshots.insert(snapshot({ filesId: shared, sizeBytes: 100, createdAt: at('01-04T00:00:00') }));
    await snapshots.insert(snapshot({ status: 'building', sizeBytes: null }));
    await snapshots.insert(snapshot({ isTransient: true }));
    const found = (await ledger(database).listStored()).sort((a, b) => a.bytes - b.bytes);
    expect(found).toEqual([
      { accountId, bytes: 7, since: at('01-02T00:00:00') },
      { accountId, bytes: 100, since: at('01-03T00:00:00') },
      { accountId: otherId, bytes: 200, since: at('01-03T00:00:00') },
    ]);
    // One that is being made counts as one.
    expect(await snapshots.keptBy(accountId)).toEqual({ snapshots: 3, storedBytes: 107 });
    expect(await snapshots.keptBy(otherId)).toEqual({ snapshots: 0, storedBytes: 200 });
  });
});

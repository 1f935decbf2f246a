/** A database of every schema that there ever was becomes one of today, with what is in it; one of tomorrow is refused. */
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import type { AccountId, IncarnationId, SandboxId, ShareId, SnapshotId } from '@instavm/core';
import { DEFAULT_LIFECYCLE } from '@instavm/core';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  Accounts,
  ApiKeys,
  AuditWriter,
  auditTrail,
  type Database,
  domainRecords,
  egressLog,
  ledger,
  openDatabase,
  sandboxRecords,
  schemaOf,
  shareRecords,
  snapshotRecords,
} from '../src/index.ts';
import { MIGRATIONS } from '../src/migrations.ts';
import { schemaPath } from './schemas.ts';

const NAMES = Object.keys(MIGRATIONS);
const WRITTEN = NAMES.filter((name) => existsSync(schemaPath(name)));
const ACCOUNT = 'acct_first' as AccountId;
const SANDBOX = '10000000-0000-4000-8000-000000000001' as SandboxId;
const SHARE = 'shrfifthaaaaaaaaaaaaaaa' as ShareId;

/** What was written by a schema, and must still be so. */
const MEANINGS: Readonly<Record<string, (database: Database) => Promise<void>>> = {
  async '0001_accounts_and_sandboxes'(database) {
    const found = await new ApiKeys(database).authenticate('instavm_sk_of_the_first_schema');
    expect(found).toMatchObject({
      account: { id: ACCOUNT, email: 'admin@localhost', isAdministrator: true },
      key: { scope: 'full', sandboxMetadata: null, expiresAt: null },
    });
    const records = sandboxRecords(database);
    expect(await records.findByIncarnation('vm_first' as IncarnationId)).toMatchObject({
      id: SANDBOX,
      state: 'running',
      size: { memoryMib: 512, vcpus: 2 },
      metadata: { team: 'a' },
      env: { NAME: `it's "quoted"` },
      egress: { allowHttps: true, allowedDomains: ['example.com'] },
      lifecycle: DEFAULT_LIFECYCLE,
      ...{ savedIn: null, savedBytes: null, endCause: null },
    });
    expect((await records.list(ACCOUNT, { limit: 10 })).length).toBeGreaterThanOrEqual(2);
  },
  async '0002_end_cause'(database) {
    const found = await sandboxRecords(database).find('20000000-0000-4000-8000-000000000001' as SandboxId);
    expect(found).toMatchObject({ state: 'stopped', endCause: 'expiry' });
  },
  async '0003_lifecycle'(database) {
    expect(await sandboxRecords(database).findByIncarnation('vm_third' as IncarnationId)).toMatchObject({
      state: 'suspended',
      savedIn: 'st_suspended',
      leaseLeftMs: 540_000,
      lifecycle: { autoResume: false, autoSuspend: true, snapshotOnExpiry: 'kept', idleSuspendSeconds: 30 },
    });
    const snapshots = snapshotRecords(database);
    expect(await snapshots.find('snap_third' as SnapshotId)).toMatchObject({ name: 'base', spec: { env: { A: 'b' } } });
    expect([...(await snapshots.listFiles())].sort()).toEqual(['st_snapshot', 'st_suspended']);
  },
  async '0004_egress_log'(database) {
    const { entries } = await egressLog(database).list(SANDBOX, { limit: 10 });
    expect(entries).toMatchObject([{ id: 1, host: 'example.com', port: 443, allowed: true, bytesReceived: 20 }]);
  },
  async '0005_shares'(database) {
    const found = await shareRecords(database).find(SHARE);
    expect(found).toMatchObject({ port: 8080, isPublic: true, revokedAt: null, rewriteHost: false });
  },
  async '0006_custom_domains'(database) {
    expect(await domainRecords(database).findHeld('app.example.com')).toMatchObject({ id: 1, shareId: SHARE });
  },
  async '0007_revoked_links'(database) {
    expect(await shareRecords(database).isLinkRevoked(SHARE, 'lnkaaaaaaaaaaaaaaaa' as never)).toBe(true);
  },
  async '0007_share_hosts'(database) {
    const found = await shareRecords(database).find('shrseventhaaaaaaaaaaaaa' as ShareId);
    expect(found).toMatchObject({ port: 3000, rewriteHost: true });
  },
  async '0008_key_scopes'(database) {
    const found = await new ApiKeys(database).authenticate('instavm_sk_of_the_eighth_schema');
    expect(found?.key).toMatchObject({ scope: 'run', sandboxMetadata: { team: 'a' } });
    expect((await new Accounts(database).quotasOf(ACCOUNT)).get('sandboxes')).toBe(7);
  },
  async '0009_ledger'(database) {
    const books = ledger(database);
    expect(await books.balanceOf(ACCOUNT)).toBe(50_000_000);
    expect(await books.load()).toMatchObject({
      watchedUntil: new Date('2026-01-09T00:00:10Z'),
      runs: [{ incarnationId: 'vm_first', sandboxId: SANDBOX }],
    });
    await expect(database.deleteFrom('ledger').execute()).rejects.toThrow('only added to');
  },
  async '0010_sign_in'(database) {
    const ada = await new Accounts(database).findByEmail('ada@example.com');
    expect(ada).toMatchObject({ id: 'acct_second', isAdministrator: false });
    const credentials = await database.selectFrom('credentials').select(['account_id', 'password']).execute();
    expect(credentials).toEqual([{ account_id: 'acct_second', password: 'salt:hash' }]);
  },
  async '0011_audit_events'(database) {
    const found = await auditTrail(database, new AuditWriter(undefined, () => {})).find(ACCOUNT, 1);
    expect(found).toMatchObject({ type: 'sandbox.created', status: 'success', sandboxId: SANDBOX });
  },
};

describe('migrations', () => {
  let directory: string;
  let fresh: unknown[];
  beforeAll(async () => {
    const path = join(await mkdtemp(join(tmpdir(), 'instavm-migrations-test-')), 'fresh.db');
    await (await openDatabase(path)).destroy();
    fresh = structure(path);
    await rm(dirname(path), { recursive: true });
  });
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-migrations-test-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  const structure = (path: string): unknown[] => {
    const file = new DatabaseSync(path);
    const all = file.prepare('select type, name, tbl_name, sql from sqlite_master order by type, name').all();
    file.close();
    return all;
  };
  const write = (path: string, schema: string): void => {
    const file = new DatabaseSync(path);
    file.exec(`PRAGMA synchronous = OFF; BEGIN; ${readFileSync(schemaPath(schema), 'utf8')} COMMIT`);
    file.close();
  };

  it('have each left a file of what they made, but for those after the last one that did', () => {
    expect(WRITTEN).toEqual(NAMES.slice(0, WRITTEN.length));
    expect(Object.keys(MEANINGS)).toEqual(WRITTEN);
  });

  it.each(WRITTEN)('bring a database of %s along, and all that is in it', async (schema) => {
    const path = join(directory, 'old.db');
    write(path, schema);
    const database = await openDatabase(path);
    expect(await schemaOf(database)).toBe(NAMES.at(-1));
    for (const earlier of WRITTEN.slice(0, WRITTEN.indexOf(schema) + 1)) await MEANINGS[earlier]?.(database);
    await database.destroy();
    expect(structure(path)).toEqual(fresh);
    const file = new DatabaseSync(path);
    expect(file.prepare('pragma foreign_key_check').all()).toEqual([]);
    file.close();
  });

  it('refuse a database of a newer version by the name of what they do not know, and leave it as it is', async () => {
    const path = join(directory, 'newer.db');
    await (await openDatabase(path, { ...MIGRATIONS, '9999_of_tomorrow': { up: async () => {} } })).destroy();
    const before = readFileSync(path);
    await expect(openDatabase(path)).rejects.toMatchObject({
      code: 'data_incompatible',
      message: expect.stringContaining('9999_of_tomorrow'),
    });
    expect(readFileSync(path).equals(before)).toBe(true);
  });
});

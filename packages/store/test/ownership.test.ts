/**
 * What organisations with roles will need of the schema, and have already (docs/decisions/0014): an account owns things whether or not anybody signs in
 * to it, nothing belongs to a person otherwise, and several people act for one account, each with rights of their own.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { expect, it } from 'vitest';
import { Accounts, ApiKeys, openDatabase } from '../src/index.ts';

/** Whose rows are found by something that an account owns. */
const THROUGH: Readonly<Record<string, string>> = {
  incarnations: 'sandbox_id',
  egress_log: 'sandbox_id',
  revoked_links: 'share_id',
  // For as long as a sandbox runs.
  metered_runs: 'account_id',
  balances: 'account_id',
};
/** Of the server, of a holder of a secret, or of the migrator. */
const NOBODYS = ['accounts', 'meter', 'verifications', 'kysely_migration', 'kysely_migration_lock', 'sqlite_sequence'];
/** How a person proves to be one: what an organisation has none of. */
const OF_PEOPLE = ['credentials', 'sign_ins'];

async function inDatabase(work: (path: string) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-store-test-'));
  try {
    await work(join(directory, 'instavm.db'));
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

it('has an account as the owner of every row of every table', () =>
  inDatabase(async (path) => {
    await (await openDatabase(path)).destroy();
    const sqlite = new DatabaseSync(path);
    const column = (sql: string, name: string) =>
      sqlite
        .prepare(sql)
        .all()
        .map((row) => String(row[name]));
    const ownerless = column("select name from sqlite_schema where type = 'table'", 'name').filter((table) => {
      if (NOBODYS.includes(table)) return false;
      const through = THROUGH[table];
      if (through !== undefined) return !column(`pragma table_info(${table})`, 'name').includes(through);
      const owners = sqlite.prepare(`pragma foreign_key_list(${table})`).all();
      return !owners.some(({ from, table: to }) => from === 'account_id' && to === 'accounts');
    });
    sqlite.close();
    expect(ownerless).toEqual([]);
  }));

it('lets several people act for one account that nobody signs in to, each with rights of their own', () =>
  inDatabase(async (path) => {
    const database = await openDatabase(path);
    const [accounts, keys] = [new Accounts(database), new ApiKeys(database)];
    const team = await accounts.createWithKey('team@example.com', 'The team', 'first', () => {});
    const ada = await keys.create(team.id, { name: 'Ada', scope: 'full' });
    const eve = await keys.create(team.id, { name: 'Eve', scope: 'read' });
    for (const [{ secret }, scope] of [
      [ada, 'full'],
      [eve, 'read'],
    ] as const) {
      const found = await keys.authenticate(secret);
      expect([found?.account.id, found?.key.scope]).toEqual([team.id, scope]);
    }
    await keys.revoke(team.id, ada.key.id);
    expect(await keys.authenticate(ada.secret)).toBeUndefined();
    expect((await keys.authenticate(eve.secret))?.account.id).toBe(team.id);
    for (const table of OF_PEOPLE)
      expect(
        await database
          .selectFrom(table as 'credentials')
          .selectAll()
          .execute(),
      ).toEqual([]);
    await database.destroy();
  }));

it('takes memberships beside what is there: people are accounts, and an organisation is one without a password', () =>
  inDatabase(async (path) => {
    const database = await openDatabase(path);
    const accounts = new Accounts(database);
    const make = (email: string) => accounts.createWithKey(email, email, 'first', () => {});
    const [team, ada, eve] = [await make('team@a'), await make('ada@a'), await make('eve@a')];
    // Of the migration to come; it changes no table that there is.
    await database.schema
      .createTable('memberships')
      .addColumn('organization_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('member_id', 'text', (column) => column.notNull().references('accounts.id'))
      .addColumn('role', 'text', (column) => column.notNull())
      .addPrimaryKeyConstraint('memberships_key', ['organization_id', 'member_id'])
      .execute();
    await database.destroy();
    const sqlite = new DatabaseSync(path);
    sqlite.exec('pragma foreign_keys = on');
    const join = sqlite.prepare('insert into memberships values (?, ?, ?)');
    join.run(team.id, ada.id, 'owner');
    join.run(team.id, eve.id, 'viewer');
    expect(() => join.run(team.id, eve.id, 'owner')).toThrow(/UNIQUE/);
    expect(() => join.run(team.id, 'acct_nobody', 'viewer')).toThrow(/FOREIGN KEY/);
    sqlite.close();
    // A daemon of before the migration is not troubled by it.
    const again = await openDatabase(path);
    expect(await new Accounts(again).find(team.id)).toMatchObject({ name: 'team@a' });
    await again.destroy();
  }));

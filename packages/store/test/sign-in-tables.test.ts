/** What becomes of the accounts of a database that knew no sign-in. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Accounts, openDatabase } from '../src/index.ts';
import { MIGRATIONS } from '../src/migrations.ts';

describe('the tables of people who sign in', () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-store-test-'));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  it('make the account of the first start the administrator', async () => {
    const path = join(directory, 'instavm.db');
    const before = Object.fromEntries(Object.entries(MIGRATIONS).filter(([name]) => name < '0010'));
    const old = await openDatabase(path, before);
    await sql`insert into accounts (id, email, name, created_at)
      values ('acct_first', 'admin@localhost', 'Administrator', '2026-01-01T00:00:00.000Z')`.execute(old);
    await old.destroy();

    const database = await openDatabase(path);
    const accounts = new Accounts(database);
    expect(await accounts.findByEmail('Admin@Localhost')).toMatchObject({ id: 'acct_first', isAdministrator: true });
    const later = await accounts.createWithKey('later@example.com', 'Later', 'first', () => {});
    expect(later.isAdministrator).toBe(false);
    await database.destroy();
  });
});

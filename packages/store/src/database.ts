/** The database on one machine: SQLite through Node's own module, WAL, migrated on opening. */
import { mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync, type SQLInputValue } from 'node:sqlite';
import { InstaVMError } from '@instavm/wire';
import { Kysely, type SqliteDatabase, SqliteDialect, sql } from 'kysely';
import { Migrator } from 'kysely/migration';
import { MIGRATIONS } from './migrations.ts';
import type { Tables } from './schema.ts';

/** How long a statement waits, with the whole daemon, for a program that holds the file. */
const BUSY_TIMEOUT_MS = 1_000;
/** Primary result codes (sqlite3.h) of what the host denies, not of what we asked wrongly: BUSY, LOCKED, READONLY, IOERR, FULL, CANTOPEN. */
const HOST_FAULTS: ReadonlySet<number> = new Set([5, 6, 8, 10, 13, 14]);

export type Database = Kysely<Tables>;

/**
 * @param path a file, or `:memory:`
 * @param migrations fewer than all only to make a database of before
 * @throws data_incompatible for a database of a newer version; when a migration fails. The file is then as it was
 */
export async function openDatabase(path: string, migrations = MIGRATIONS): Promise<Database> {
  if (path !== ':memory:') mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  const sqlite = new DatabaseSync(path);
  // NORMAL is durable against a crash of the process, and in WAL mode against corruption by a crash of the host.
  sqlite.exec(
    `PRAGMA busy_timeout = ${BUSY_TIMEOUT_MS}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON`,
  );
  const database = new Kysely<Tables>({ dialect: new SqliteDialect({ database: adapted(sqlite) }) });
  try {
    refuseNewer(sqlite, Object.keys(migrations), path);
  } catch (error) {
    await database.destroy();
    throw error;
  }
  const migrator = new Migrator({ db: database, provider: { getMigrations: async () => migrations } });
  const { error } = await migrator.migrateToLatest();
  if (error !== undefined) {
    await database.destroy();
    throw error;
  }
  return database;
}

/** @returns the last migration that was applied. @throws store_unavailable, when it cannot be asked */
export async function schemaOf(database: Database): Promise<string> {
  const { rows } = await sql<{ name: string }>`select max(name) as name from kysely_migration`.execute(database);
  return rows[0]?.name ?? '';
}

/** Migrations go forward only, so what a newer version has made of the tables is not undone here. @throws data_incompatible */
export function refuseNewer(sqlite: DatabaseSync, known: readonly string[], path: string): void {
  const hasAny = sqlite.prepare("select 1 from sqlite_master where name = 'kysely_migration'").get() !== undefined;
  const applied = hasAny ? sqlite.prepare('select name from kysely_migration order by name').all() : [];
  const unknown = applied.map(({ name }) => String(name)).filter((name) => !known.includes(name));
  if (unknown.length === 0) return;
  throw new InstaVMError('data_incompatible', `the database ${path} is of a newer version (${unknown.join(', ')})`);
}

/** `node:sqlite` in the shape that Kysely's dialect expects. */
function adapted(sqlite: DatabaseSync): SqliteDatabase {
  return {
    close: () => sqlite.close(),
    prepare: (sql) => {
      const statement = sqlite.prepare(sql);
      const values = (parameters: readonly unknown[]): SQLInputValue[] => parameters as SQLInputValue[];
      return {
        reader: statement.columns().length > 0,
        all: (parameters) => named(() => statement.all(...values(parameters))),
        run: (parameters) => named(() => statement.run(...values(parameters))),
        iterate: (parameters) => statement.iterate(...values(parameters)),
      };
    },
  };
}

/** @throws store_unavailable when the host is why it cannot be done now */
function named<T>(statement: () => T): T {
  try {
    return statement();
  } catch (error) {
    const { errcode = 0, message } = error as { errcode?: number; message: string };
    // Extended codes have the primary one in their low byte.
    if (!HOST_FAULTS.has(errcode & 0xff)) throw error;
    throw new InstaVMError('store_unavailable', `the database of the daemon cannot be used: ${message}`, {
      cause: error,
      details: { retryAfterMs: BUSY_TIMEOUT_MS },
    });
  }
}

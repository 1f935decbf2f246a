/**
 * Writes what a database looks like after a migration, for `migrations.test.ts`, as SQL into `schemas/<migration>.sql`: the file of the migration
 * before, migrated, with the rows that standard input adds in SQL. Run once, when the migration is finished, and never again for it:
 *
 *     node --conditions=instavm-source packages/store/test/write-schema.ts 0012_name <<< "insert into …;"
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { openDatabase } from '../src/index.ts';
import { MIGRATIONS } from '../src/migrations.ts';
import { SCHEMAS, schemaPath } from './schemas.ts';

const [name = ''] = process.argv.slice(2);
const names = Object.keys(MIGRATIONS);
const index = names.indexOf(name);
if (index < 0) throw new Error(`there is no migration ${name}; there are ${names.join(', ')}`);

const directory = await mkdtemp(join(tmpdir(), 'instavm-schema-'));
try {
  const path = join(directory, 'instavm.db');
  const before = names[index - 1];
  if (before !== undefined) {
    const file = new DatabaseSync(path);
    file.exec(readFileSync(schemaPath(before), 'utf8'));
    file.close();
  }
  const upTo = Object.fromEntries(Object.entries(MIGRATIONS).slice(0, index + 1));
  await (await openDatabase(path, upTo)).destroy();
  const file = new DatabaseSync(path);
  file.exec(readFileSync(0, 'utf8'));
  writeFileSync(join(SCHEMAS, `${name}.sql`), dump(file));
  file.close();
} finally {
  await rm(directory, { recursive: true, force: true });
}

function dump(file: DatabaseSync): string {
  const objects = file.prepare("select type, name, sql from sqlite_master where name not like 'sqlite_%'").all();
  const tables = objects.filter(({ type }) => type === 'table');
  const others = objects.filter(({ type, sql }) => type !== 'table' && sql !== null);
  const rows = tables.flatMap(({ name: table }) => {
    const columns = file.prepare(`pragma table_info("${table}")`).all();
    const values = columns.map(({ name: column }) => `quote("${column}")`).join(` || ', ' || `);
    const all = file.prepare(`select ${values} as row from "${table}"`).all();
    return all.map(({ row }) => `insert into "${table}" values (${row});`);
  });
  return `${[...tables.map(({ sql }) => `${sql};`), ...rows, ...others.map(({ sql }) => `${sql};`)].join('\n')}\n`;
}

/** Of rows with metadata, those that have wanted entries. Both are JSON as `JSON.stringify` writes it. */
import type { Entries } from '@instavm/core';
import { type Expression, type RawBuilder, type SqlBool, sql } from 'kysely';

/**
 * Whether metadata has an entry of the same name, type and value for each of `wanted`.
 * @param metadata a JSON object
 */
export function hasEntries(metadata: Expression<string>, wanted: Entries): RawBuilder<SqlBool> {
  // Finding the text of an entry is fast and almost always right; what is left is compared in earnest.
  const near = Object.entries(wanted).map(([name, value]) => {
    const text = JSON.stringify({ [name]: value }).slice(1, -1);
    return sql`instr(${metadata}, ${text}) > 0`;
  });
  const exact = sql`not exists (
    select 1 from json_each(${JSON.stringify(wanted)}) as wanted where not exists (
      select 1 from json_each(${metadata}) as own
        where own.key = wanted.key and own.type = wanted.type and own.value is wanted.value))`;
  return sql<SqlBool>`(${sql.join([...near, exact], sql` and `)})`;
}

/** Lists that are read in pages: newest first, and by id where instants are the same. */
import { type RawBuilder, type SqlBool, sql } from 'kysely';

/** Whether a row with these two columns comes after the last of the page before. */
export function comesAfter(
  last: { readonly id: string; readonly createdAt: Date },
  columns = { id: 'id', createdAt: 'created_at' },
): RawBuilder<SqlBool> {
  const [id, createdAt] = [sql.ref(columns.id), sql.ref(columns.createdAt)];
  const at = last.createdAt.toISOString();
  return sql<SqlBool>`(${createdAt} < ${at} or (${createdAt} = ${at} and ${id} > ${last.id}))`;
}

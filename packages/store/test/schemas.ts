/** Databases as every finished migration left them, with rows, in `schemas/`; written by `write-schema.ts`. */
import { join } from 'node:path';

export const SCHEMAS = join(import.meta.dirname, 'schemas');
export const schemaPath = (migration: string): string => join(SCHEMAS, `${migration}.sql`);

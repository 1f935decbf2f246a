/** JSON that may be torn, foreign or hostile: what is found on the disk, and what a VMM says. */
import type { z } from 'zod';

/** @returns undefined for what is none, or is not what the schema says: what it describes is then not there */
export function parseJson<Value>(schema: z.ZodType<Value>, text: string): Value | undefined {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

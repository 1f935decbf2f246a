/** Manifests of templates and snapshots, as they are found on the disk. */
import type { z } from 'zod';

/** @returns undefined for a damaged one: what it describes is then not there */
export function parseManifest<Manifest>(schema: z.ZodType<Manifest>, text: string): Manifest | undefined {
  try {
    return schema.parse(JSON.parse(text));
  } catch {
    return undefined;
  }
}

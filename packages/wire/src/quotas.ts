/** How much an account may have and ask for: ours. */
import { z } from 'zod';

export const QUOTA_NAMES = [
  'sandboxes',
  'vcpus',
  'memory_mib',
  'snapshots',
  'stored_mib',
  'creates_per_minute',
  'requests_per_minute',
] as const;
export type QuotaName = (typeof QUOTA_NAMES)[number];

const MAX_QUOTA = 1e9;
export const QuotaValues = z.record(z.enum(QUOTA_NAMES), z.number());
export const SetQuotasRequest = z
  .partialRecord(z.enum(QUOTA_NAMES), z.number().int().min(0).max(MAX_QUOTA).nullable())
  .refine((changes) => Object.keys(changes).length > 0, 'names no quota')
  .describe("null: the server's default again.");
/** What counts against those that are not by the minute. */
export const QuotaUse = z.object({
  sandboxes: z.number(),
  vcpus: z.number(),
  memory_mib: z.number(),
  snapshots: z.number(),
  stored_mib: z.number(),
});
export const AccountQuotas = z.object({ account_id: z.string(), quotas: QuotaValues, used: QuotaUse });

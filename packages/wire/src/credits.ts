/** Credit and use (contract §12). Amounts are dollars; the server counts in whole micro-dollars. */
import { z } from 'zod';

export const CreditPeriod = z.enum(['current_month', 'last_30_days', 'all']);
export const PeriodQuery = z.object({ period: CreditPeriod.default('current_month') });
export const CreditUsageQuery = z.object({
  period: CreditPeriod.default('current_month'),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  usage_type: z.string().max(100).optional(),
});
export const CreditCheckQuery = z.object({
  usage_type: z.string().max(100),
  required_credits: z.coerce.number().min(0).max(1e9),
});
export const TrendsQuery = z.object({
  period: z.enum(['7d', '30d', '90d']).default('30d'),
  granularity: z.enum(['hourly', 'daily', 'weekly']).default('daily'),
});

const MAX_DAYS = 366;
const DayOrInstant = z.union([z.iso.date(), z.iso.datetime({ offset: true, local: true })]);
export const BreakdownQuery = z.object({
  days: z.coerce.number().int().min(1).max(MAX_DAYS).default(30),
  start_date: DayOrInstant.optional().describe('The first day (UTC); without it, so many days up to the last.'),
  end_date: DayOrInstant.optional().describe('The last day (UTC), today when left out.'),
});

/** There is no browser automation: nothing of it is given or used. */
const BrowserAutomation = z.object({ allocated: z.number(), used: z.number(), remaining: z.number() });
const Dollars = z.object({
  allocated: z.number().describe('What there was to use: what was used and what remains.'),
  used: z.number(),
  remaining: z.number(),
  overage: z.number().optional().describe('What was used beyond what was given.'),
});
export const CreditSummary = z.object({
  period: CreditPeriod,
  dollars: Dollars,
  browser_automation: BrowserAutomation,
  enforced: z.boolean().describe('Whether an account without credit runs nothing.'),
});
export const CreditAllocation = z.object({
  id: z.string(),
  allocation_period_start: z.string(),
  allocation_period_end: z.string(),
  dollars: Dollars,
  browser_automation: BrowserAutomation,
});
export const CreditUsage = z.array(
  z.object({
    id: z.number(),
    created_at: z.string(),
    usage_type: z.string(),
    credits_used: z.number(),
    resource_id: z.string().nullable(),
    from: z.string(),
  }),
);
export const CreditCheck = z.object({
  available: z.boolean(),
  required_credits: z.number(),
  remaining_credits: z.number(),
  shortage: z.number(),
  reason: z.string().nullable(),
});
export const CreditRates = z.object({
  vm_execution: z.object({
    rate_description: z.string(),
    cpu_rate_per_second_per_core: z.number(),
    ram_rate_per_gib_per_second: z.number(),
  }),
  snapshot_storage: z.object({ rate_description: z.string(), rate_per_gib_hour: z.number() }),
  egress: z.object({ rate_description: z.string(), rate_per_gib: z.number() }),
  browser_automation: z.object({
    rate_description: z.string(),
    sample_1_call: z.number(),
    minimum_charge: z.number(),
  }),
});

const used = { cost_dollars: z.number(), cpu_hours: z.number(), ram_gib_hours: z.number() };
const further = { storage_gib_hours: z.number(), egress_gib: z.number() };
export const CreditTrends = z.object({
  period: z.string(),
  granularity: z.string(),
  series: z.array(z.object({ begins_at: z.string(), ...used, ...further })),
});
export const CreditForecast = z.object({
  used_this_month: z.number(),
  daily_average: z.number().describe('Of the last seven days.'),
  projected_this_month: z.number(),
  remaining: z.number(),
  days_left: z.number().nullable().describe('At that average; null when nothing is used.'),
});
export const UsageBreakdown = z.object({
  period_start: z.string(),
  period_end: z.string(),
  total_days: z.number(),
  totals: z.object({ ...used, ...further }),
  daily_breakdown: z.array(z.object({ date: z.string(), ...used, ...further })),
});

export const GrantRequest = z.strictObject({
  account: z.string().min(1).max(320).optional().describe('Its e-mail address or id; your own when left out.'),
  dollars: z.number().min(-1e6).max(1e6).describe('Less than nothing takes back.'),
  note: z.string().max(500).optional(),
  id: z
    .string()
    .regex(/^[\w.:-]{1,100}$/)
    .optional()
    .describe('The same id is granted once, however often it is sent.'),
});
export const Granted = z.object({ account_id: z.string(), email: z.string(), id: z.string(), remaining: z.number() });

/** Credit and use (contract §12), with grants by the administrator as our addition. */
import { HOUR_MS } from '@instavm/core';
import type { Used } from '@instavm/store';
import {
  BreakdownQuery,
  CreditAllocation,
  CreditCheck,
  CreditCheckQuery,
  CreditForecast,
  CreditRates,
  CreditSummary,
  CreditTrends,
  CreditUsage,
  CreditUsageQuery,
  Granted,
  GrantRequest,
  InstaVMError,
  PeriodQuery,
  TrendsQuery,
  UsageBreakdown,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import type { Services } from '../app.ts';
import { type Caller, FULL, READ, requireAdministrator, requireAllSandboxes } from '../auth.ts';
import { DAY_MS, plus, type Span, sumOf, usedByTime, usedIn } from '../used-by-time.ts';
import { accountNamed } from './views.ts';

const NO_BROWSER = { allocated: 0, used: 0, remaining: 0 };
const MAX_DAYS = 366;
const FORECAST_DAYS = 7;

export const creditRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const { credit, rates, usage } = services;
    const dollarsSince = async ({ account }: Caller, from: Date) => {
      const used = (await usedIn(services, { accountId: account.id, from, to: FOREVER })).microDollars;
      const left = await credit.remaining(account.id);
      const remaining = Math.max(0, left);
      const spent = { allocated: dollars(used + left), used: dollars(used), remaining: dollars(remaining) };
      return left < 0 ? { ...spent, overage: dollars(-left) } : spent;
    };

    const summary = { querystring: PeriodQuery, response: { 200: CreditSummary } };
    app.get('/v1/credits/summary', { ...READ, schema: summary }, async ({ caller, query: { period } }) => ({
      period,
      dollars: await dollarsSince(caller, beginOf(period, new Date())),
      browser_automation: NO_BROWSER,
      enforced: credit.isEnforced,
    }));

    const allocation = { response: { 200: CreditAllocation } };
    app.get('/v1/credits/allocation', { ...READ, schema: allocation }, async ({ caller }) => {
      const start = monthOf(new Date());
      return {
        id: `${caller.account.id}:${start.toISOString().slice(0, 7)}`,
        allocation_period_start: start.toISOString(),
        allocation_period_end: monthAfter(start).toISOString(),
        dollars: await dollarsSince(caller, start),
        browser_automation: NO_BROWSER,
      };
    });

    const charges = {
      summary:
        'What was charged, newest first: a row for each hour of a sandbox, and of what is stored; the present hour is not among them yet',
      querystring: CreditUsageQuery,
      response: { 200: CreditUsage },
    };
    app.get('/v1/credits/usage', { ...READ, schema: charges }, async ({ caller, query }) => {
      requireAllSandboxes(caller);
      const from = beginOf(query.period, new Date());
      const wanted = { accountId: caller.account.id, from, to: FOREVER };
      const rows = await usage.charges(wanted, query.limit, query.usage_type);
      return rows.map(({ id, to, kind, microDollars, resourceId, from: begins }) => ({
        id,
        created_at: to.toISOString(),
        usage_type: kind,
        credits_used: dollars(-microDollars),
        resource_id: resourceId,
        from: begins.toISOString(),
      }));
    });

    const check = { querystring: CreditCheckQuery, response: { 200: CreditCheck } };
    app.get('/v1/credits/check', { ...READ, schema: check }, async ({ caller, query }) => {
      const required = query.required_credits;
      if (query.usage_type === 'browser_automation') {
        const reason = 'browser automation is not available on this server';
        return { available: false, required_credits: required, remaining_credits: 0, shortage: required, reason };
      }
      const remaining = Math.max(0, dollars(await credit.remaining(caller.account.id)));
      const shortage = Math.max(0, required - remaining);
      const available = shortage === 0 || !credit.isEnforced;
      const reason =
        shortage === 0 ? null : credit.isEnforced ? 'too little credit' : 'credit is not enforced on this server';
      return { available, required_credits: required, remaining_credits: remaining, shortage, reason };
    });

    const shown = { response: { 200: CreditRates } };
    app.get('/v1/credits/rates', { ...READ, schema: shown }, async () => ({
      vm_execution: {
        rate_description: 'vCPUs and memory of a sandbox while it runs, by the second; nothing while it is suspended',
        cpu_rate_per_second_per_core: dollars(rates.perVcpuHour) / 3_600,
        ram_rate_per_gib_per_second: dollars(rates.perGibHour) / 3_600,
      },
      snapshot_storage: {
        rate_description: 'snapshots, and what suspended sandboxes keep, by the hour',
        rate_per_gib_hour: dollars(rates.perStoredGibHour),
      },
      egress: { rate_description: 'bytes that sandboxes send out', rate_per_gib: dollars(rates.perEgressGib) },
      browser_automation: {
        rate_description: 'not available on this server',
        sample_1_call: 0,
        minimum_charge: 0,
      },
    }));

    const trends = { querystring: TrendsQuery, response: { 200: CreditTrends } };
    app.get('/v1/credits/usage/trends', { ...READ, schema: trends }, async ({ caller, query }) => {
      const { period, granularity } = query;
      const now = new Date();
      const isHourly = granularity === 'hourly';
      const step = isHourly ? HOUR_MS : DAY_MS;
      const to = new Date(startOf(now, step).getTime() + step);
      const from = new Date(to.getTime() - Number.parseInt(period, 10) * DAY_MS);
      const asked = { accountId: caller.account.id, from, to };
      const spans = await usedByTime(services, asked, isHourly ? 'hour' : 'day', now);
      const shown = granularity === 'weekly' ? byWeek(spans) : spans;
      const series = shown.map(({ begins, used }) => ({ begins_at: begins.toISOString(), ...usedView(used) }));
      return { period, granularity, series };
    });

    const forecast = { response: { 200: CreditForecast } };
    app.get('/v1/credits/usage/forecasting', { ...READ, schema: forecast }, async ({ caller }) => {
      const now = new Date();
      const accountId = caller.account.id;
      const month = monthOf(now);
      const recent = { accountId, from: new Date(now.getTime() - FORECAST_DAYS * DAY_MS), to: FOREVER };
      const average = (await usedIn(services, recent)).microDollars / FORECAST_DAYS;
      const used = (await usedIn(services, { accountId, from: month, to: FOREVER })).microDollars;
      const remaining = await credit.remaining(accountId);
      const daysToCome = (monthAfter(month).getTime() - now.getTime()) / DAY_MS;
      return {
        used_this_month: dollars(used),
        daily_average: dollars(average),
        projected_this_month: dollars(used + average * daysToCome),
        remaining: dollars(remaining),
        days_left: average > 0 ? Math.max(0, remaining) / average : null,
      };
    });

    const breakdown = { querystring: BreakdownQuery, response: { 200: UsageBreakdown } };
    app.get('/v1/users/me/usage-breakdown', { ...READ, schema: breakdown }, async ({ caller, query }) => {
      const now = new Date();
      const last = startOf(query.end_date === undefined ? now : new Date(query.end_date), DAY_MS);
      const first =
        query.start_date === undefined
          ? new Date(last.getTime() - (query.days - 1) * DAY_MS)
          : startOf(new Date(query.start_date), DAY_MS);
      const to = new Date(last.getTime() + DAY_MS);
      const days = (to.getTime() - first.getTime()) / DAY_MS;
      if (days < 1 || days > MAX_DAYS)
        throw new InstaVMError('invalid_argument', `start_date: must be 1 to ${MAX_DAYS} days up to end_date`);
      const spans = await usedByTime(services, { accountId: caller.account.id, from: first, to }, 'day', now);
      return {
        period_start: dateOf(first),
        period_end: dateOf(last),
        total_days: days,
        totals: usedView(sumOf(spans)),
        daily_breakdown: spans.map(({ begins, used }) => ({ date: dateOf(begins), ...usedView(used) })),
      };
    });

    const granted = {
      summary: 'Give credit to an account; for the administrator',
      body: GrantRequest,
      response: { 200: Granted },
    };
    app.post('/v2/credits/grants', { ...FULL, schema: granted }, async ({ caller, body, log }) => {
      requireAdministrator(caller);
      const { account: wanted, dollars: amount, note = null, id = crypto.randomUUID() } = body;
      const account = wanted === undefined ? caller.account : await accountNamed(services, wanted);
      await credit.grant(account.id, Math.round(amount * MICRO), id, note);
      log.info({ accountId: account.id, dollars: amount, by: caller.account.id, id }, 'credit granted');
      const remaining = dollars(await credit.remaining(account.id));
      return { account_id: account.id, email: account.email, id, remaining };
    });
  };

const MICRO = 1e6;
const dollars = (microDollars: number): number => Math.round(microDollars) / MICRO;
const FOREVER = new Date('9999-12-31T00:00:00Z');

/** UTC. */
const startOf = (at: Date, stepMs: number): Date => new Date(Math.floor(at.getTime() / stepMs) * stepMs);
const dateOf = (at: Date): string => at.toISOString().slice(0, 10);
const monthOf = (at: Date): Date => new Date(Date.UTC(at.getUTCFullYear(), at.getUTCMonth()));
const monthAfter = (month: Date): Date => new Date(Date.UTC(month.getUTCFullYear(), month.getUTCMonth() + 1));

function beginOf(period: 'current_month' | 'last_30_days' | 'all', now: Date): Date {
  if (period === 'all') return new Date(0);
  return period === 'current_month' ? monthOf(now) : new Date(now.getTime() - 30 * DAY_MS);
}

/** Weeks begin on Mondays; the first may be cut short. */
function byWeek(days: readonly Span[]): Span[] {
  const weeks: Span[] = [];
  for (const { begins, used } of days) {
    const last = weeks.at(-1);
    if (last === undefined || begins.getUTCDay() === 1) weeks.push({ begins, used });
    else weeks[weeks.length - 1] = { begins: last.begins, used: plus(last.used, used) };
  }
  return weeks;
}

const MIB_PER_GIB = 1_024;
const usedView = (used: Used) => ({
  cost_dollars: dollars(used.microDollars),
  cpu_hours: used.vcpuMs / HOUR_MS,
  ram_gib_hours: used.mibMs / HOUR_MS / MIB_PER_GIB,
  storage_gib_hours: used.storedMibMs / HOUR_MS / MIB_PER_GIB,
  egress_gib: used.egressBytes / MIB_PER_GIB ** 3,
});

/** What an account used over time: the ledger, and in the last span what is not in it yet. */
import { type Accrued, HOUR_MS } from '@instavm/core';
import type { LedgerQuery, Used } from '@instavm/store';
import type { Services } from './app.ts';

export const DAY_MS = 24 * HOUR_MS;

export type Span = { readonly begins: Date; readonly used: Used };

const NOTHING: Used = { microDollars: 0, vcpuMs: 0, mibMs: 0, storedMibMs: 0, egressBytes: 0 };

export const plus = (one: Used, other: Used): Used => ({
  microDollars: one.microDollars + other.microDollars,
  vcpuMs: one.vcpuMs + other.vcpuMs,
  mibMs: one.mibMs + other.mibMs,
  storedMibMs: one.storedMibMs + other.storedMibMs,
  egressBytes: one.egressBytes + other.egressBytes,
});

export const sumOf = (spans: readonly Span[]): Used => spans.reduce((sum, { used }) => plus(sum, used), NOTHING);

/** Every hour or day (UTC) from one to another, oldest first, also those without use. @param query from the begin of one */
export async function usedByTime(
  { meter, usage }: Pick<Services, 'meter' | 'usage'>,
  query: LedgerQuery,
  by: 'hour' | 'day',
  now: Date,
): Promise<Span[]> {
  const { value: used, accrued } = await meter.beside(query.accountId, () => usage.used(query, by));
  const step = by === 'hour' ? HOUR_MS : DAY_MS;
  const spans: Span[] = [];
  for (let time = query.from.getTime(); time < query.to.getTime(); time += step) {
    const begins = new Date(time);
    const name = begins.toISOString().slice(0, by === 'hour' ? 13 : 10);
    const ofLedger = used.get(name) ?? NOTHING;
    const isNow = now.getTime() >= time && now.getTime() < time + step;
    spans.push({ begins, used: isNow ? plus(ofLedger, asUsed(accrued)) : ofLedger });
  }
  return spans;
}

/** All of a time. */
export async function usedIn(services: Pick<Services, 'meter' | 'usage'>, query: LedgerQuery): Promise<Used> {
  const { value, accrued } = await services.meter.beside(query.accountId, () => services.usage.used(query, 'day'));
  return [...value.values()].reduce(plus, asUsed(accrued));
}

const asUsed = ({ microDollars, vcpuMs, mibMs, egressBytes }: Accrued): Used => ({
  ...{ microDollars, vcpuMs, mibMs, egressBytes },
  storedMibMs: 0,
});

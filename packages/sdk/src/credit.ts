/** Credit of the account, and what it was used for. Amounts are dollars. */
import type { HttpClient } from './http.ts';

export type CreditPeriod = 'current_month' | 'last_30_days' | 'all';

export type CreditBalance = {
  /** What was used in the period and what remains. */
  readonly allocated: number;
  readonly used: number;
  readonly remaining: number;
  /** What was used beyond what was given; 0 as a rule. */
  readonly overage: number;
  /** Whether an account without credit runs nothing. */
  readonly isEnforced: boolean;
};

export type Usage = {
  readonly costDollars: number;
  readonly vcpuHours: number;
  readonly memoryGibHours: number;
  readonly storageGibHours: number;
  readonly egressGib: number;
};

export type UsageByDay = {
  readonly totals: Usage;
  /** Every day (UTC, `2026-01-31`), oldest first. */
  readonly days: readonly (Usage & { readonly date: string })[];
};

export type Charge = {
  readonly from: Date;
  readonly to: Date;
  readonly kind: string;
  readonly dollars: number;
  /** The sandbox; null for what is stored. */
  readonly resourceId: string | null;
};

export type Rates = {
  readonly perVcpuHour: number;
  readonly perMemoryGibHour: number;
  readonly perStorageGibHour: number;
  readonly perEgressGib: number;
};

export class Credit {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /** Now, what runs included. */
  async balance(period: CreditPeriod = 'current_month'): Promise<CreditBalance> {
    const request = { method: 'GET', path: '/v1/credits/summary', query: { period } } as const;
    const { dollars, enforced } = await this.#http.json<WireSummary>(request);
    const { overage = 0, ...rest } = dollars;
    return { ...rest, overage, isEnforced: enforced };
  }

  /** @param days 1 to 366, today the last */
  async usage(days = 30): Promise<UsageByDay> {
    const request = { method: 'GET', path: '/v1/users/me/usage-breakdown', query: { days } } as const;
    const { totals, daily_breakdown } = await this.#http.json<WireBreakdown>(request);
    return { totals: usageOf(totals), days: daily_breakdown.map((day) => ({ date: day.date, ...usageOf(day) })) };
  }

  /** What was charged, newest first; the present hour is not among it yet. @param limit 1 to 1000 */
  async charges(period: CreditPeriod = 'current_month', limit = 100): Promise<Charge[]> {
    const request = { method: 'GET', path: '/v1/credits/usage', query: { period, limit } } as const;
    const rows = await this.#http.json<WireCharge[]>(request);
    return rows.map((row) => ({
      from: new Date(row.from),
      to: new Date(row.created_at),
      kind: row.usage_type,
      dollars: row.credits_used,
      resourceId: row.resource_id,
    }));
  }

  async rates(): Promise<Rates> {
    const wire = await this.#http.json<WireRates>({ method: 'GET', path: '/v1/credits/rates' });
    return {
      perVcpuHour: hourly(wire.vm_execution.cpu_rate_per_second_per_core),
      perMemoryGibHour: hourly(wire.vm_execution.ram_rate_per_gib_per_second),
      perStorageGibHour: wire.snapshot_storage.rate_per_gib_hour,
      perEgressGib: wire.egress.rate_per_gib,
    };
  }

  /**
   * For the administrator.
   * @param options.account e-mail address or id; your own when left out
   * @param options.id the same id is granted once, however often it is sent
   * @returns what that account has now
   * @throws InstaVMError `permission_denied`, `account_not_found`
   */
  async grant(
    dollars: number,
    options: {
      readonly account?: string | undefined;
      readonly note?: string | undefined;
      readonly id?: string | undefined;
    } = {},
  ): Promise<{ readonly accountId: string; readonly email: string; readonly remaining: number }> {
    const request = { method: 'POST', path: '/v2/credits/grants', json: { dollars, ...options } } as const;
    const { account_id, email, remaining } = await this.#http.json<WireGranted>(request);
    return { accountId: account_id, email, remaining };
  }
}

type WireUsage = {
  cost_dollars: number;
  cpu_hours: number;
  ram_gib_hours: number;
  storage_gib_hours: number;
  egress_gib: number;
};
type WireSummary = {
  dollars: { allocated: number; used: number; remaining: number; overage?: number };
  enforced: boolean;
};
type WireBreakdown = { totals: WireUsage; daily_breakdown: (WireUsage & { date: string })[] };
type WireCharge = {
  from: string;
  created_at: string;
  usage_type: string;
  credits_used: number;
  resource_id: string | null;
};
type WireRates = {
  vm_execution: { cpu_rate_per_second_per_core: number; ram_rate_per_gib_per_second: number };
  snapshot_storage: { rate_per_gib_hour: number };
  egress: { rate_per_gib: number };
};
type WireGranted = { account_id: string; email: string; remaining: number };

/** Micro-dollars are whole; what a division by seconds left beyond them is not. */
const hourly = (perSecond: number): number => Math.round(perSecond * 3_600 * 1e6) / 1e6;

const usageOf = (wire: WireUsage): Usage => ({
  costDollars: wire.cost_dollars,
  vcpuHours: wire.cpu_hours,
  memoryGibHours: wire.ram_gib_hours,
  storageGibHours: wire.storage_gib_hours,
  egressGib: wire.egress_gib,
});

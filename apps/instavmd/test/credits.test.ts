/** Credit over HTTP, in daemons whose sandboxes are so dear that fifty cents last seconds. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asAnother } from './accounts.ts';
import { type Api, apiOf } from './api.ts';

const DEAR = {
  INSTAVM_CREDIT: 'enforce',
  INSTAVM_CREDIT_WELCOME: '0.5',
  INSTAVM_RATE_VCPU_HOUR: '900',
  INSTAVM_METER_SECONDS: '0.2',
};

describe('an account on a server that enforces credit', () => {
  const dollarsPerVcpuHour = 90;
  let daemon: TestDaemon;
  let api: Api;
  beforeAll(async () => {
    // A small sandbox has twenty seconds for what comes before its end, and large ones bring that about.
    daemon = await startTestDaemon({ vmm: 'fake', env: { ...DEAR, INSTAVM_RATE_VCPU_HOUR: `${dollarsPerVcpuHour}` } });
    api = apiOf(daemon);
  });
  afterAll(() => daemon.stop());
  const get = async (path: string) => (await api.request('GET', path)).body;
  const stateOf = async (id: string) => (await get(`/v2/sandboxes/${id}`)).state;

  it('is suspended when it has used up its credit, makes and resumes nothing, and goes on when it is topped up', async () => {
    expect(await get('/v1/credits/summary')).toEqual({
      period: 'current_month',
      dollars: { allocated: 0.5, used: 0, remaining: 0.5 },
      browser_automation: { allocated: 0, used: 0, remaining: 0 },
      enforced: true,
    });
    const id = await api.createSession({ vcpu_count: 1 });
    expect((await api.execute(id, 'echo kept > note')).status).toBe(200);
    const large = [await api.createSession({ vcpu_count: 8 }), await api.createSession({ vcpu_count: 8 })];
    for (const each of [id, ...large]) await expect.poll(() => stateOf(each)).toBe('suspended');
    expect((await get(`/v2/sandboxes/${id}`)).state_reason).toBe('the credit of the account is used up');
    const { dollars } = await get('/v1/credits/summary');
    expect(dollars.remaining).toBe(0);
    expect(dollars.overage).toBeGreaterThanOrEqual(0);
    expect(dollars.allocated).toBeCloseTo(0.5, 5);

    const refused = { status: 403, body: { code: 'credit_exhausted', detail: 'the credit of the account is used up' } };
    expect(await api.json('POST', '/v1/sessions/session', { api_key: daemon.apiKey })).toMatchObject(refused);
    expect(await api.request('POST', '/v1/vms')).toMatchObject(refused);
    expect(await api.execute(id, 'cat note')).toMatchObject(refused);
    expect(await api.request('POST', `/v2/sandboxes/${id}/resume`)).toMatchObject(refused);
    const check = await get('/v1/credits/check?usage_type=vm_execution&required_credits=1');
    expect(check).toMatchObject({ available: false, required_credits: 1, remaining_credits: 0, shortage: 1 });

    const told = async () => (await get('/v1/audit/events?event_group=credit')).items;
    await expect
      .poll(told)
      .toMatchObject([
        ...Array(4).fill({ event_type: 'credit.refused', status: 'denied' }),
        { event_type: 'credit.exhausted' },
        { event_type: 'credit.granted' },
      ]);
    const grant = { dollars: 1_000, note: 'paid', id: 'order-1' };
    const { body } = await api.json('POST', '/v2/credits/grants', grant);
    expect(body).toMatchObject({ email: 'admin@localhost', id: 'order-1' });
    expect(body.remaining).toBeGreaterThan(990);
    expect((await api.json('POST', '/v2/credits/grants', grant)).body.remaining).toBeLessThan(1_001);
    expect((await api.execute(id, 'cat note')).body.stdout).toBe('kept\n');
    for (const each of [id, ...large]) await api.request('DELETE', `/v2/sandboxes/${each}`);
  });

  it('is told what it used, by day, hour and charge, and what that costs', async () => {
    await expect.poll(async () => (await get('/v1/credits/usage')).length).toBeGreaterThan(0);
    const [row] = await get('/v1/credits/usage?period=all&limit=1');
    expect(row).toMatchObject({ usage_type: 'vm_execution', created_at: expect.stringMatching(/^\d{4}-/) });
    expect(row.credits_used).toBeGreaterThan(0);
    const today = () => new Date().toISOString().slice(0, 10);
    const asked = today();
    const breakdown = await get('/v1/users/me/usage-breakdown?days=7');
    expect([asked, today()]).toContain(breakdown.period_end);
    expect([breakdown.total_days, breakdown.daily_breakdown.length]).toEqual([7, 7]);
    expect(breakdown.daily_breakdown.at(-1).date).toBe(breakdown.period_end);
    // Of the last two days, should midnight have come meanwhile; and so with hours.
    const sumOf = (rows: Record<string, number>[], field: string) =>
      rows.reduce((sum, row) => sum + (row[field] ?? Number.NaN), 0);
    const lately = (field: string) => sumOf(breakdown.daily_breakdown.slice(-2), field);
    const { used } = (await get('/v1/credits/summary')).dollars;
    expect(lately('cost_dollars')).toBeCloseTo(used, 6);
    expect(lately('cpu_hours') * dollarsPerVcpuHour + lately('ram_gib_hours') * 0.016).toBeCloseTo(used, 4);
    expect(breakdown.totals.cost_dollars).toBeCloseTo(lately('cost_dollars'), 9);
    expect(breakdown.totals.cpu_hours).toBeCloseTo(lately('cpu_hours'), 9);
    const trends = await get('/v1/credits/usage/trends?period=7d&granularity=hourly');
    expect(trends.series).toHaveLength(7 * 24);
    expect(sumOf(trends.series.slice(-2), 'cost_dollars')).toBeCloseTo(used, 6);
    expect((await get('/v1/credits/usage/trends?period=90d&granularity=weekly')).series.length).toBeGreaterThanOrEqual(
      13,
    );
    expect(await get('/v1/credits/usage/forecasting')).toMatchObject({
      used_this_month: used,
      days_left: expect.any(Number),
    });
    expect((await get('/v1/credits/rates')).vm_execution.cpu_rate_per_second_per_core).toBeCloseTo(0.025, 9);
    expect(await get('/v1/credits/allocation')).toMatchObject({ id: expect.stringMatching(/^acct_.*:\d{4}-\d\d$/) });
  });

  it.each([
    '/v1/credits/summary?period=yesterday',
    '/v1/credits/usage?limit=0',
    '/v1/users/me/usage-breakdown?start_date=2026-01-02&end_date=2026-01-01',
    '/v1/users/me/usage-breakdown?start_date=2020-01-01&end_date=2026-01-01',
    '/v1/users/me/usage-breakdown?days=900',
    '/v1/credits/check?usage_type=x',
  ])('is told what is wrong with %s', async (path) => {
    expect((await api.request('GET', path)).status).toBe(422);
  });

  it('has a balance that others neither see nor change', async () => {
    const other = await asAnother(daemon, 'poor@example.com');
    expect((await other.request('GET', '/v1/credits/summary')).body.dollars).toEqual({
      allocated: 0.5,
      used: 0,
      remaining: 0.5,
    });
    expect((await other.request('GET', '/v1/credits/usage')).body).toEqual([]);
    expect((await other.json('POST', '/v2/credits/grants', { dollars: 1 })).body.code).toBe('permission_denied');
    const { body } = await api.json('POST', '/v2/credits/grants', { account: 'Poor@example.com', dollars: 2 });
    expect(body).toMatchObject({ email: 'poor@example.com', remaining: 2.5 });
    expect((await other.request('GET', '/v1/credits/summary')).body.dollars.remaining).toBe(2.5);
    expect((await api.json('POST', '/v2/credits/grants', { account: 'nobody', dollars: 1 })).body.code).toBe(
      'account_not_found',
    );
  });
});

describe('a server that enforces nothing', () => {
  it('counts all the same, and stops nobody', async () => {
    const daemon = await startTestDaemon({ vmm: 'fake', env: { ...DEAR, INSTAVM_CREDIT: 'off' } });
    try {
      const api = apiOf(daemon);
      const id = await api.createSession();
      const overage = async () => (await api.request('GET', '/v1/credits/summary')).body.dollars.overage;
      await expect.poll(overage).toBeGreaterThan(0.1);
      expect((await api.execute(id, 'echo on')).body.stdout).toBe('on\n');
      await api.createSession();
      const check = await api.request('GET', '/v1/credits/check?usage_type=vm_execution&required_credits=1');
      expect(check.body).toMatchObject({ available: true, shortage: 1 });
    } finally {
      await daemon.stop();
    }
  });
});

describe('a daemon that is killed', () => {
  it('has charged what ran, to a tick, and goes on from there', async () => {
    const env = { ...DEAR, INSTAVM_CREDIT: 'off', INSTAVM_METRICS_TOKEN: 'a-token-of-the-scraper' };
    const first = await startTestDaemon({ vmm: 'fake', env });
    const { dataDirectory } = first;
    const usedOf = async (daemon: TestDaemon): Promise<number> =>
      (await apiOf(daemon).request('GET', '/v1/credits/summary')).body.dollars.used;
    await apiOf(first).createSession();
    const headers = { authorization: `Bearer ${env.INSTAVM_METRICS_TOKEN}` };
    const lagMs = async (): Promise<number> => {
      const text = await (await fetch(`${first.baseUrl}/metrics`, { headers })).text();
      return Number(/^instavm_meter_lag_seconds (\S+)$/m.exec(text)?.[1]) * 1_000;
    };
    await expect.poll(() => usedOf(first)).toBeGreaterThan(0.5);
    const askedAt = performance.now();
    const before = await usedOf(first);
    const knownAt = performance.now();
    // A tick has come since.
    await expect.poll(async () => performance.now() - knownAt - (await lagMs())).toBeGreaterThan(0);
    await first.crash();
    const lifeMs = performance.now() - askedAt;
    const second = await startTestDaemon({ vmm: 'fake', dataDirectory, env });
    try {
      // Two vCPUs cost half a dollar a second; the guest of the fake died with its daemon.
      const used = await usedOf(second);
      expect(used).toBeGreaterThanOrEqual(before);
      expect(used).toBeLessThan(before + (0.501 * lifeMs) / 1_000);
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(await usedOf(second)).toBe(used);
    } finally {
      await second.stop();
    }
  });
});

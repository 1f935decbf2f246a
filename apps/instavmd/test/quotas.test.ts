/** What an account may have and ask for, over HTTP. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asAnother } from './accounts.ts';
import { type Answer, type Api, apiOf } from './api.ts';

let daemon: TestDaemon;
let admin: Api;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  admin = apiOf(daemon);
});
afterAll(() => daemon.stop());

let count = 0;
/** An account with quotas of its own. */
async function accountWith(quotas: object): Promise<Api> {
  const email = `quota-${count++}@example.com`;
  const api = await asAnother(daemon, email);
  const { status, body } = await admin.json('PATCH', `/v2/accounts/${email}/quotas`, quotas);
  expect([status, body.quotas]).toEqual([200, expect.objectContaining(quotas)]);
  return api;
}
const create = (api: Api, fields: object = {}): Promise<Answer> =>
  api.json('POST', '/v2/sandboxes', { memory_mb: 256, vcpu_count: 1, ...fields });
const refusal = ({ status, body }: Answer) => ({ status, code: body.code, ...body.details });

describe('a quota', () => {
  it.each([
    ['sandboxes', { sandboxes: 2 }, { quota: 'sandboxes', limit: 2, used: 2 }],
    ['vCPUs', { vcpus: 2 }, { quota: 'vcpus', limit: 2, used: 2 }],
    ['memory', { memory_mib: 700 }, { quota: 'memory_mib', limit: 700, used: 512 }],
  ])('of %s holds for what runs, and what has ended or sleeps is not part of it', async (_, quotas, details) => {
    const api = await accountWith(quotas);
    const [one] = [await create(api), await create(api)];
    const refused = await create(api);
    expect(refusal(refused)).toEqual({ status: 429, code: 'quota_exceeded', ...details });
    expect(refused.body.detail).toContain(`this account may have ${details.limit}`);
    await api.request('POST', `/v2/sandboxes/${one.body.id}/suspend`);
    expect((await create(api)).status).toBe(201);
    expect(refusal(await api.request('POST', `/v2/sandboxes/${one.body.id}/resume`))).toMatchObject({
      status: 429,
      code: 'quota_exceeded',
    });
  });

  it('of snapshots holds for those that are asked for, not for suspending', async () => {
    const api = await accountWith({ snapshots: 1 });
    const { id } = (await create(api)).body;
    const snapshot = (): Promise<Answer> => api.json('POST', `/v2/sandboxes/${id}/snapshots`, {});
    expect((await snapshot()).status).toBe(201);
    expect(refusal(await snapshot())).toEqual({
      status: 429,
      code: 'quota_exceeded',
      quota: 'snapshots',
      limit: 1,
      used: 1,
    });
    expect((await api.json('POST', `/v2/sandboxes/${id}/fork`, {})).status).toBe(201);
    expect((await api.request('POST', `/v2/sandboxes/${id}/suspend`)).body.state).toBe('suspended');
  });

  it('of sandboxes made a minute counts every copy, and says when to ask again', async () => {
    const api = await accountWith({ creates_per_minute: 3 });
    const { id } = (await create(api)).body;
    expect((await api.json('POST', `/v2/sandboxes/${id}/fork`, { count: 2 })).status).toBe(201);
    for (const refused of [
      await create(api),
      await api.json('POST', '/v1/sessions/session', { api_key: api.daemon.apiKey }),
      await api.json('POST', `/v2/sandboxes/${id}/fork`, {}),
    ]) {
      expect([refused.status, refused.body]).toEqual([
        429,
        expect.objectContaining({ code: 'rate_limited', retryable: 'yes' }),
      ]);
      const seconds = Number(refused.headers.get('retry-after'));
      expect(seconds).toBeGreaterThan(0);
      expect(seconds).toBeLessThanOrEqual(60);
    }
    expect((await api.execute(id, 'echo on')).body.stdout).toBe('on\n');
    // Asking for what runs makes nothing; starting what was ended does.
    expect((await api.json('POST', '/v1/vms', { session_id: id })).status).toBe(200);
    await api.json('POST', '/kill', { session_id: id });
    expect((await api.json('POST', '/v1/vms', { session_id: id })).body.code).toBe('rate_limited');
  });

  it('of requests a minute is the account’s, whatever the key, and nobody else’s', async () => {
    const api = await accountWith({ requests_per_minute: 5 });
    const other = await asAnother(daemon, 'patient@example.com');
    const { body } = await api.json('POST', '/v1/api-keys/', {});
    const second = apiOf({ ...daemon, apiKey: body.api_key });
    const statuses = [];
    for (let asked = 0; asked < 3; asked++)
      for (const each of [api, second]) statuses.push((await each.request('GET', '/v1/users/me')).status);
    expect(statuses).toEqual([200, 200, 200, 200, 429, 429]);
    const refused = await api.request('GET', '/v1/vms');
    expect(refused.body).toMatchObject({ code: 'rate_limited', detail: 'too many requests: 5 a minute are allowed' });
    expect(refused.headers.get('retry-after')).toMatch(/^\d+$/);
    expect((await other.request('GET', '/v1/users/me')).status).toBe(200);
  });

  it('is shown to the account, set by the administrator alone, and the default again when it is taken back', async () => {
    const defaults = (await admin.request('GET', '/v2/quotas')).body.quotas;
    expect(defaults).toMatchObject({ sandboxes: 100, snapshots: 10_000 });
    const api = await accountWith({ sandboxes: 1 });
    const { account_id, quotas, used } = (await api.request('GET', '/v2/quotas')).body;
    expect(quotas).toEqual({ ...defaults, sandboxes: 1 });
    expect(used).toEqual({ sandboxes: 0, vcpus: 0, memory_mib: 0, snapshots: 0, stored_mib: 0 });
    const made = await api.json('POST', '/v2/sandboxes', { memory_mb: 512, vcpu_count: 2 });
    await api.json('POST', `/v2/sandboxes/${made.body.id}/snapshots`, {});
    expect((await api.request('GET', '/v2/quotas')).body.used).toMatchObject({
      ...{ sandboxes: 1, vcpus: 2, memory_mib: 512, snapshots: 1 },
    });
    await api.request('DELETE', `/v2/sandboxes/${made.body.id}`);
    const path = `/v2/accounts/${account_id}/quotas`;
    expect((await api.json('PATCH', path, { sandboxes: 9 })).body.code).toBe('permission_denied');
    expect((await admin.json('PATCH', path, { sandboxes: null })).body.quotas).toEqual(defaults);
    for (const wrong of [{}, { sandboxes: -1 }, { elephants: 1 }, { sandboxes: 1.5 }])
      expect((await admin.json('PATCH', path, wrong)).status).toBe(422);
    expect((await admin.json('PATCH', '/v2/accounts/nobody/quotas', { sandboxes: 1 })).body.code).toBe(
      'account_not_found',
    );
  });
});

describe('a stranger', () => {
  it('who tries many keys is told to wait, and keeps nobody else out', async () => {
    const stranger = apiOf({ ...daemon, apiKey: 'instavm_sk_guess' });
    const statuses = new Set<number>();
    for (let tried = 0; tried < 20; tried++) {
      const answers = await Promise.all(Array.from({ length: 40 }, () => stranger.request('GET', '/v1/users/me')));
      for (const { status } of answers) statuses.add(status);
    }
    expect([...statuses].sort()).toEqual([401, 429]);
    expect((await admin.request('GET', '/v1/users/me')).status).toBe(200);
  });
});

/** Sessions, VMs and our own sandboxes over HTTP. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf } from './api.ts';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const UNKNOWN = '00000000-0000-4000-8000-000000000000';

describe('sessions', () => {
  let daemon: TestDaemon;
  let api: Api;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_MAX_SANDBOXES: '8' } });
    api = apiOf(daemon);
  });
  afterAll(() => daemon.stop());

  it('are created with the key in the body and no header', async () => {
    const body = JSON.stringify({ api_key: daemon.apiKey, vm_lifetime_seconds: 60 });
    const headers = { 'content-type': 'application/json' };
    const response = await fetch(`${daemon.baseUrl}/v1/sessions/session`, { method: 'POST', body, headers });
    const { session_id: id } = (await response.json()) as { session_id: string };
    expect(id).toMatch(UUID);
    await api.json('POST', '/kill', { session_id: id });
  });

  it('tell their status, and end by /kill any number of times', async () => {
    const id = await api.createSession({ vm_lifetime_seconds: 3_600 });
    const alive = (await api.request('GET', `/v1/sessions/status/${id}`)).body;
    expect(alive).toMatchObject({ exists: true, vm_assigned: true, vm_alive: true, vm_status: 'active' });
    expect(alive.vm_id).not.toMatch(UUID);
    expect(alive.expires_in_seconds).toBeGreaterThan(3_000);
    expect(alive.expires_in_seconds).toBeLessThanOrEqual(3_600);
    for (let time = 0; time < 2; time++) {
      expect((await api.json('POST', '/kill', { session_id: id })).status).toBe(200);
    }
    const dead = (await api.request('GET', `/v1/sessions/status/${id}`)).body;
    expect(dead).toMatchObject({ exists: true, vm_assigned: true, vm_alive: false, vm_status: 'killed' });
  });

  it('may be ended without having been', async () => {
    expect((await api.json('POST', '/kill', { session_id: UNKNOWN })).status).toBe(200);
  });

  it('stay ended when a late command comes after /kill', async () => {
    const id = await api.createSession();
    await api.json('POST', '/kill', { session_id: id });
    const late = await api.execute(id, 'echo hi');
    expect([late.status, late.body.code]).toEqual([409, 'invalid_state']);
  });

  it('get a fresh VM for the next command when theirs died', async () => {
    const id = await api.createSession();
    const before = (await api.request('GET', `/v1/sessions/status/${id}`)).body.vm_id;
    const lost = await api.execute(id, 'poweroff');
    expect([lost.status, lost.body.code]).toEqual([502, 'guest_lost']);
    const status = (await api.request('GET', `/v1/sessions/status/${id}`)).body;
    expect(status).toMatchObject({ vm_alive: false });
    expect((await api.execute(id, 'echo again')).body.stdout).toBe('again\n');
    const after = (await api.request('GET', `/v1/sessions/status/${id}`)).body;
    expect(after).toMatchObject({ vm_alive: true });
    expect(after.vm_id).not.toBe(before);
    await api.json('POST', '/kill', { session_id: id });
  });

  it('are found by their metadata', async () => {
    const mine = await api.createSession({ metadata: { team: 'a', n: 1 } });
    const other = await api.createSession({ metadata: { team: 'b' } });
    const query = encodeURIComponent(JSON.stringify({ team: 'a' }));
    const found = (await api.request('GET', `/v1/sessions/sandboxes?metadata=${query}&limit=10`)).body;
    expect(found.map((vm: { session_id: string }) => vm.session_id)).toEqual([mine]);
    for (const id of [mine, other]) await api.json('POST', '/kill', { session_id: id });
  });

  it('tell what they used', async () => {
    const id = await api.createSession({ memory_mb: 600, vcpu_count: 1 });
    const usage = (await api.request('GET', `/v1/sessions/usage/${id}`)).body;
    expect(usage).toMatchObject({ session_id: id, vcpu_count: 1, memory_mb: 1024 });
    await api.json('POST', '/kill', { session_id: id });
  });

  it('keep the egress policy that they are given', async () => {
    const id = await api.createSession();
    const policy = {
      allow_http: false,
      allow_https: true,
      allow_public_repos: false,
      allowed_domains: ['example.com'],
      allowed_cidrs: ['10.0.0.0/8'],
    };
    const path = `/v1/egress/session/${id}`;
    expect((await api.request('GET', path)).body).toMatchObject({ allow_http: false, allow_https: false });
    expect((await api.json('POST', path, policy)).status).toBe(200);
    expect((await api.request('GET', path)).body).toMatchObject(policy);
    await api.json('POST', '/kill', { session_id: id });
  });

  it('pass their environment to every command', async () => {
    const id = await api.createSession({ env: { GREETING: 'good day' } });
    expect((await api.execute(id, 'echo "$GREETING"')).body.stdout).toBe('good day\n');
    await api.json('POST', '/kill', { session_id: id });
  });

  it('are unknown under another id', async () => {
    for (const id of [UNKNOWN, 'nonsense', '..%2f..', '%00']) {
      const answer = await api.request('GET', `/v1/sessions/status/${id}`);
      expect([id, answer.status, answer.body.code]).toEqual([id, 404, 'sandbox_not_found']);
    }
  });

  it('are refused beyond the limit of the account, exactly', async () => {
    const answers = await Promise.all(Array.from({ length: 12 }, () => api.json('POST', '/v2/sandboxes', {})));
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(8);
    const refused = answers.filter(({ status }) => status === 429);
    expect(refused).toHaveLength(4);
    expect(refused[0]?.body).toMatchObject({ code: 'quota_exceeded', retryable: 'no' });
    for (const { body } of answers) if (body.id) await api.request('DELETE', `/v2/sandboxes/${body.id}`);
  });

  describe('seen as VMs', () => {
    it('are created with fields that the server does not know', async () => {
      const created = await api.json('POST', '/v1/vms?wait=true', { vm_lifetime_seconds: 60, anything: [1] });
      expect(created.status).toBe(200);
      expect(created.body).toMatchObject({ status: 'active' });
      const id = created.body.vm_id;
      const running = (await api.request('GET', '/v1/vms')).body.map((vm: { vm_id: string }) => vm.vm_id);
      expect(running).toContain(id);
      expect((await api.request('GET', `/v1/vms/${id}`)).body.session_id).toBe(created.body.session_id);
      const changed = await api.json('PATCH', `/v1/vms/${id}`, { metadata: { a: 1 } });
      expect(changed.body.metadata).toEqual({ a: 1 });
      expect((await api.request('DELETE', `/v1/vms/${id}`)).body.status).toBe('terminated');
      const still = (await api.request('GET', '/v1/vms')).body.map((vm: { vm_id: string }) => vm.vm_id);
      expect(still).not.toContain(id);
      const all = (await api.request('GET', '/v1/vms/')).body.map((vm: { vm_id: string }) => vm.vm_id);
      expect(all).toContain(id);
    });

    it('are created without a body, and come back for a session that was ended', async () => {
      const { body } = await api.request('POST', '/v1/vms');
      await api.json('POST', '/kill', { session_id: body.session_id });
      const again = await api.json('POST', '/v1/vms', { session_id: body.session_id });
      expect(again.body.session_id).toBe(body.session_id);
      expect(again.body.vm_id).not.toBe(body.vm_id);
      await api.json('POST', '/kill', { session_id: body.session_id });
    });

    it('refuse what this server has not', async () => {
      expect((await api.json('POST', '/v1/vms', { image_variant: 'computer-use' })).status).toBe(403);
      const asked = { volumes: [{ volume_id: 'v', mount_path: '/data' }], vault_ids: ['v'] };
      expect((await api.json('POST', '/v1/vms', asked)).body).toMatchObject({
        ...{ code: 'not_available', detail: 'volumes and vaults are not available on this server' },
      });
    });
  });

  describe('seen as sandboxes', () => {
    it('live from 201 to stopped, and DELETE says so again', async () => {
      const { status, body } = await api.json('POST', '/v2/sandboxes', { ttl_seconds: 60, memory_mb: 200 });
      expect(status).toBe(201);
      expect(body).toMatchObject({ state: 'running', memory_mb: 256, vcpu_count: 2, metadata: {} });
      expect((await api.request('GET', '/v2/sandboxes')).body.sandboxes[0].id).toBe(body.id);
      for (let time = 0; time < 2; time++) {
        const ended = await api.request('DELETE', `/v2/sandboxes/${body.id}`);
        expect([ended.status, ended.body.state]).toEqual([200, 'stopped']);
      }
      const file = await api.request('GET', `/v2/sandboxes/${body.id}/files?path=/x`);
      expect([file.status, file.body.code]).toEqual([409, 'invalid_state']);
    });

    it('tell their numbers', async () => {
      const { body } = await api.json('POST', '/v2/sandboxes', {});
      const stats = (await api.request('GET', `/v2/sandboxes/${body.id}/stats`)).body;
      expect(stats.disk_total_bytes).toBeGreaterThan(0);
      await api.request('DELETE', `/v2/sandboxes/${body.id}`);
    });
  });

  it('belong to a user', async () => {
    expect((await api.request('GET', '/v1/users/me')).body).toMatchObject({ is_verified: true });
  });

  it('are reached below a doubled slash too', async () => {
    expect((await api.request('GET', '//v1/users/me')).status).toBe(200);
  });
});

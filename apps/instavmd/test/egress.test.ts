/** Egress policies over HTTP, as they are sent, refused, kept and explained. */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf } from './api.ts';

const POLICY = {
  allow_http: false,
  allow_https: true,
  allow_public_repos: false,
  allowed_domains: ['*.example.com', 'example.org'],
  allowed_cidrs: ['10.0.0.0/8'],
};
const CLOSED = { ...POLICY, allow_https: false, allowed_domains: [], allowed_cidrs: [] };

describe('egress policies', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  let own: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    id = await api.createSession();
    own = `/v2/sandboxes/${id}/egress`;
  });
  afterAll(() => daemon.stop());
  const policyOf = async (sandboxId: string) => (await api.request('GET', `/v2/sandboxes/${sandboxId}/egress`)).body;

  it('are the default until one is sent: package registries and nothing else', async () => {
    const before = { ...CLOSED, allow_public_repos: true };
    expect(await policyOf(id)).toEqual({ ...before, is_default: true });
    expect((await api.request('GET', `/v1/egress/session/${id}`)).body).toEqual({ ...before, status: 'ok' });
  });

  it('are one and the same by session, by VM and by sandbox', async () => {
    const vm = (await api.request('GET', `/v1/sessions/status/${id}`)).body.vm_id;
    const paths = [`/v1/egress/session/${id}`, `/v1/egress/vm/${vm}`, own];
    for (const [index, path] of paths.entries()) {
      const policy = { ...POLICY, allowed_domains: [`n${index}.example.com`] };
      const answer = await api.json(path === own ? 'PUT' : 'POST', path, policy);
      expect([answer.status, answer.body]).toEqual([200, expect.objectContaining(policy)]);
      for (const each of paths) expect((await api.request('GET', each)).body).toMatchObject(policy);
    }
  });

  it('are refused with everything that is wrong with them, and nothing is changed', async () => {
    const before = await policyOf(id);
    const wrong = { ...POLICY, allowed_domains: ['ok.test', 'a b', 'x/y'], allowed_cidrs: ['10.0.0.0/33'] };
    const session = `/v1/egress/session/${id}`;
    for (const [method, path] of [['POST', session] as const, ['PUT', own] as const]) {
      const { status, body } = await api.json(method, path, wrong);
      expect([status, body.code]).toEqual([422, 'invalid_argument']);
      for (const text of ['a b', 'x/y', '10.0.0.0/33']) expect(body.detail).toContain(text);
      expect(body.detail).not.toContain('ok.test');
      expect(body.details.problems).toHaveLength(3);
    }
    expect(await policyOf(id)).toEqual(before);
  });

  it('are whole in our own words: what is left out is no permission', async () => {
    const { allow_https: _, ...partial } = POLICY;
    const answer = await api.json('PUT', own, partial);
    expect([answer.status, answer.body.details.fields[0].path]).toEqual([422, 'allow_https']);
  });

  it('are taken with the request that makes a sandbox, and a wrong one makes none', async () => {
    const made = (await api.json('POST', '/v2/sandboxes', { egress_policy: POLICY })).body;
    expect(await policyOf(made.id)).toEqual({ ...POLICY, is_default: false });
    const vm = (await api.json('POST', '/v1/vms', { egress_policy: POLICY })).body;
    expect(await policyOf(vm.session_id)).toMatchObject(POLICY);
    const forked = await api.json('POST', `/v2/sandboxes/${made.id}/fork`, { egress_policy: CLOSED });
    expect(await policyOf(forked.body.sandboxes[0].id)).toMatchObject(CLOSED);
    const before = (await api.request('GET', '/v2/sandboxes')).body.sandboxes.length;
    const wrong = { egress_policy: { ...POLICY, allowed_domains: ['a b'] } };
    for (const path of ['/v2/sandboxes', '/v1/vms', `/v2/sandboxes/${made.id}/fork`])
      expect((await api.json('POST', path, wrong)).body.code).toBe('invalid_argument');
    expect((await api.request('GET', '/v2/sandboxes')).body.sandboxes).toHaveLength(before);
  });

  it('explain what they would say about a destination', async () => {
    await api.json('PUT', own, POLICY);
    const test = async (destination: string) => (await api.json('POST', `${own}/test`, { destination })).body;
    expect(await test('10.1.2.3:5432')).toMatchObject({ allowed: true, rule: 'allowed_cidrs:10.0.0.0/8' });
    const denied = await test('other.test:22');
    expect(denied).toMatchObject({ allowed: false, rule: 'default_deny' });
    expect(denied.reason).toContain('other.test');
    expect((await test('[2001:db8::1]:22')).allowed).toBe(false);
    for (const wrong of ['example.com', 'example.com:0', 'example.com:65536', ':80', '2001:db8::1:80', 'http://a:80'])
      expect((await test(wrong)).code, wrong).toBe('invalid_argument');
  });

  it('and logs belong to their account', async () => {
    for (const path of [own, `${own}/log`, `${own}/log?follow=true`]) {
      const other = path.replace(id, '00000000-0000-4000-8000-000000000000');
      expect((await api.request('GET', other)).body.code).toBe('sandbox_not_found');
    }
    expect((await api.request('GET', `${own}/log`)).body).toEqual({ entries: [] });
    expect((await api.request('GET', `${own}/log?limit=0`)).status).toBe(422);
  });

  it('a follower does not keep the daemon from stopping', async () => {
    const second = await startTestDaemon({ vmm: 'fake' });
    const its = apiOf(second);
    const url = `${second.baseUrl}/v2/sandboxes/${await its.createSession()}/egress/log?follow=true`;
    const response = await fetch(url, { headers: { 'x-api-key': second.apiKey } });
    expect(response.headers.get('content-type')).toBe('text/event-stream');
    await second.stop();
    // It was told of the end, and not cut off when the daemon would wait no longer.
    expect(await response.text()).toBe(': following\n\n');
  });
});

/** What the audit trail tells of everything that is done to a daemon, and to whom. */
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { AUDIT_CATALOG, type AuditEvent } from '@instavm/wire';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { asAnother } from './accounts.ts';
import { type Api, apiOf } from './api.ts';

it('has the types that the guide lists, each in the group that its name says', async () => {
  const guide = await readFile(resolve(import.meta.dirname, '../../../docs/guides/audit.md'), 'utf8');
  const listed = [...guide.matchAll(/^\| `([a-z]+\.[a-z_]+)` \| (.+) \|$/gm)].map(([, type, what]) => [type, what]);
  expect(listed).toEqual(Object.values(AUDIT_CATALOG).flatMap((types) => Object.entries(types)));
  for (const [group, types] of Object.entries(AUDIT_CATALOG))
    for (const type of Object.keys(types)) expect(type.startsWith(`${group}.`)).toBe(true);
});

let daemon: TestDaemon;
let api: Api;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_MAX_SNAPSHOTS: '1' } });
  api = apiOf(daemon);
});
afterAll(() => daemon.stop());

const page = async (query: string, of = api): Promise<{ items: AuditEvent[]; next_cursor: string | null }> =>
  (await of.request('GET', `/v1/audit/events?${query}`)).body;
/** Oldest first. */
const typesOf = async (sessionId: string): Promise<string[]> =>
  (await page(`session_id=${sessionId}&limit=200`)).items.map(({ event_type }) => event_type).reverse();

describe('the audit trail', () => {
  it('tells the whole life of a sandbox, with who did what by which request', async () => {
    const sid = await api.createSession({ metadata: { secret: 'of the metadata' }, env: { TOKEN: 'of the env' } });
    const answer = await api.request('POST', `/v2/sandboxes/${sid}/suspend`);
    await api.execute(sid, 'true');
    await api.request('POST', `/v2/sandboxes/${sid}/suspend`);
    await api.request('POST', `/v2/sandboxes/${sid}/resume`);
    const rules = { allow_http: false, allow_https: true, allow_public_repos: false, allowed_cidrs: [] };
    await api.json('PUT', `/v2/sandboxes/${sid}/egress`, { ...rules, allowed_domains: ['example.com'] });
    await api.json('PATCH', `/v2/sandboxes/${sid}`, { metadata: { secret: 'another' } });
    await api.request('DELETE', `/v2/sandboxes/${sid}`);
    expect(await typesOf(sid)).toEqual([
      'sandbox.created',
      'sandbox.started',
      'sandbox.suspended',
      'sandbox.woken',
      'sandbox.suspended',
      'sandbox.resumed',
      'egress.policy_changed',
      'sandbox.changed',
      'sandbox.ended',
    ]);
    const { items } = await page(`session_id=${sid}&event_type=sandbox.suspended`);
    expect(items).toHaveLength(2);
    expect(items[1]).toMatchObject({
      status: 'success',
      actor_type: 'api_key',
      actor_name: daemon.apiKey.slice(0, 17),
      resource_type: 'sandbox',
      resource_id: sid,
      vm_id: expect.stringMatching(/^vm_/),
      source_ip: '127.0.0.1',
      event_payload: { reason: 'suspended by request' },
    });
    expect(answer.status).toBe(200);
    expect(items[1]?.request_id).toMatch(/^[0-9a-f-]{36}$/);
    expect(items[0]?.request_id).not.toBe(items[1]?.request_id);
    const [policy] = (await page(`session_id=${sid}&event_group=egress`)).items;
    expect(policy?.event_payload).toMatchObject({ before: null, after: { allowed_domains: ['example.com'] } });
  });

  it('tells what a snapshot became, what was restored and cloned from it, and that a quota ended it', async () => {
    const sid = await api.createSession();
    const taken = await api.json('POST', `/v2/sandboxes/${sid}/snapshots`, { name: 'kept' });
    expect((await api.json('POST', `/v2/sandboxes/${sid}/snapshots`, {})).body.code).toBe('quota_exceeded');
    const restored = await api.json('POST', '/v2/sandboxes', { snapshot_id: taken.body.id });
    const { sandboxes } = (await api.json('POST', `/v2/sandboxes/${sid}/fork`, { count: 2 })).body;
    await api.request('DELETE', `/v2/snapshots/${taken.body.id}`);
    expect(await typesOf(sid)).toEqual(['sandbox.created', 'sandbox.started', 'snapshot.created', 'snapshot.deleted']);
    expect((await page(`session_id=${restored.body.id}`)).items.at(-1)).toMatchObject({
      event_type: 'sandbox.restored',
      event_payload: { source_session_id: sid, snapshot_id: taken.body.id },
    });
    for (const { id } of sandboxes) expect((await typesOf(id))[0]).toBe('sandbox.cloned');
    const refused = {
      event_type: 'quota.refused',
      event_payload: { quota: 'snapshots', request: 'POST /v2/sandboxes/:id/snapshots' },
      error_message: expect.stringContaining('snapshots are kept'),
    };
    await expect.poll(async () => (await page('event_group=quota&status=denied')).items).toMatchObject([refused]);
  });

  it('tells of shares, their links, and domains', async () => {
    const sid = await api.createSession();
    const { share_id } = (await api.json('POST', '/v1/shares', { session_id: sid, port: 3000 })).body;
    await api.json('POST', '/v1/shares', { session_id: sid, port: 3000 });
    const { link_id } = (await api.json('POST', `/v1/shares/${share_id}/token`, {})).body;
    await api.request('DELETE', `/v1/shares/${share_id}/links/${link_id}`);
    const { id } = (await api.json('POST', '/v1/custom-domains', { domain: 'audit.example.com', share_id })).body;
    await api.request('DELETE', `/v1/custom-domains/${id}`);
    await api.json('PATCH', `/v1/shares/${share_id}`, { is_public: true });
    await api.request('DELETE', `/v1/shares/${share_id}`);
    expect((await typesOf(sid)).slice(2)).toEqual([
      'share.created',
      'share.link_created',
      'share.link_revoked',
      'share.changed',
      'share.revoked',
    ]);
    const domains = (await page('event_group=domain')).items.map(({ event_type }) => event_type);
    expect(domains).toEqual(['domain.removed', 'domain.added']);
  });

  it('tells of keys from the first to the last use, also of a refused one', async () => {
    const { id, api_key } = (await api.json('POST', '/v1/api-keys/', { name: 'audited', scope: 'read' })).body;
    const holder = apiOf({ ...daemon, apiKey: api_key });
    expect((await holder.json('POST', '/v2/sandboxes', {})).status).toBe(403);
    expect((await holder.json('POST', '/v2/sandboxes', {})).status).toBe(403);
    await api.json('PATCH', `/v1/api-keys/${id}`, { name: 'renamed' });
    await api.json('POST', `/v1/api-keys/${id}/rotate`, { grace_seconds: 60 });
    await api.request('DELETE', `/v1/api-keys/${id}`);
    for (let count = 0; count < 5; count++) expect((await holder.request('GET', '/v2/sandboxes')).status).toBe(401);
    await expect.poll(async () => (await page('event_type=key.refused')).items).toHaveLength(1);
    const events = (await page('event_group=key')).items.filter((event) => event.resource_id === String(id));
    expect(events.map(({ event_type }) => event_type).reverse()).toEqual([
      'key.created',
      'key.changed',
      'key.rotated',
      'key.revoked',
      'key.refused',
    ]);
    expect(events[0]).toMatchObject({
      status: 'denied',
      actor_type: 'anonymous',
      event_payload: { why: 'revoked', name: 'renamed' },
    });
    const denied = async () => (await page('event_type=auth.permission_denied')).items;
    const request = 'POST /v2/sandboxes';
    await expect.poll(denied).toMatchObject([{ actor_id: String(id), event_payload: { request } }]);
  });

  it('tells the account of a grant and of quotas that the administrator did it', async () => {
    const other = await asAnother(daemon, 'audited@example.com');
    await api.json('POST', '/v2/credits/grants', { account: 'audited@example.com', dollars: 7, note: 'gift' });
    await api.json('PATCH', '/v2/accounts/audited@example.com/quotas', { sandboxes: 3 });
    const me = (await api.request('GET', '/v1/users/me')).body.id;
    const { items } = await page(`user_id=${me}`, other);
    expect(items).toMatchObject([
      { event_type: 'account.quotas_changed', event_payload: { sandboxes: 3 } },
      { event_type: 'credit.granted', event_payload: { dollars: 7, note: 'gift' } },
    ]);
    const theirs = (await page('limit=200', other)).items.map(({ event_type, actor_type }) => [event_type, actor_type]);
    expect(theirs).toContainEqual(['account.created', 'system']);
    expect(theirs).toContainEqual(['credit.granted', 'system']);
  });

  it('shows a key for some sandboxes what was done to those, and nothing else', async () => {
    const mine = await api.createSession({ metadata: { team: 'b' } });
    const other = await api.createSession({ metadata: { team: 'a' } });
    const wanted = { scope: 'read', sandbox_metadata: { team: 'b' } };
    const restricted = apiOf({ ...daemon, apiKey: (await api.json('POST', '/v1/api-keys/', wanted)).body.api_key });
    const ask = async (query: string) => (await restricted.request('GET', `/v1/audit/events${query}`)).status;
    expect([await ask(''), await ask(`?session_id=${mine}`), await ask(`?session_id=${other}`)]).toEqual([
      403, 200, 404,
    ]);
    const one = async (sid: string) => ask(`/${(await page(`session_id=${sid}`)).items[0]?.id}`);
    expect([await one(mine), await one(other)]).toEqual([200, 404]);
    expect(await ask(`/${(await page('event_group=key')).items[0]?.id}`)).toBe(404);
  });

  it('holds no secret, neither what a key is nor what a sandbox was given', async () => {
    const texts = [JSON.stringify(await page('limit=200'))];
    for (const secret of [daemon.apiKey, 'of the env', 'of the metadata', 'another'])
      expect(texts[0]).not.toContain(secret);
  });

  it('refuses a cursor that it never gave, and knows no event that is not there', async () => {
    expect((await api.request('GET', '/v1/audit/events?cursor=nonsense')).status).toBe(422);
    expect((await api.request('GET', '/v1/audit/events?limit=201')).status).toBe(422);
    for (const id of ['evt_999999', 'evt_0', 'nonsense'])
      expect((await api.request('GET', `/v1/audit/events/${id}`)).body.code).toBe('event_not_found');
  });

  it('is followed as it grows, from any event on', async () => {
    const stop = new AbortController();
    const { items } = await page('limit=1');
    const response = await fetch(
      `${daemon.baseUrl}/v1/audit/events?follow=true&event_group=key&after=${items[0]?.id}`,
      {
        headers: { 'x-api-key': daemon.apiKey },
        signal: stop.signal,
      },
    );
    await api.json('POST', '/v1/api-keys/', { name: 'followed 1' });
    await api.createSession();
    await api.json('POST', '/v1/api-keys/', { name: 'followed 2' });
    let text = '';
    for await (const chunk of response.body ?? []) {
      text += Buffer.from(chunk).toString();
      if (text.includes('followed 2')) break;
    }
    stop.abort();
    const seen = text.split('\n').filter((line) => line.startsWith('data: '));
    expect(seen.map((line) => JSON.parse(line.slice(6)).event_payload.name)).toEqual(['followed 1', 'followed 2']);
  });
});

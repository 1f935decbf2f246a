/** API keys over HTTP: what they may do, and what happens to what is open by them when their right ends. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Answer, type Api, apiOf, stream } from './api.ts';

let daemon: TestDaemon;
let admin: Api;
let sandbox: string;
beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  admin = apiOf(daemon);
  sandbox = await admin.createSession();
});
afterAll(() => daemon.stop());

async function make(fields: object = {}): Promise<{ api: Api; id: number; secret: string }> {
  const { status, body } = await admin.json('POST', '/v1/api-keys/', fields);
  expect([status, body.detail]).toEqual([200, undefined]);
  return { api: apiOf({ ...daemon, apiKey: body.api_key }), id: body.id, secret: body.api_key };
}
const codeOf = ({ status, body }: Answer) => [status, body.code];
const whoami = (api: Api): Promise<Answer> => api.request('GET', '/v1/users/me');
/** Gives it an end, as near as this machine is quick enough to ask for before it is over. */
async function endSoon(id: number): Promise<void> {
  let status = 0;
  for (let ms = 400; status !== 200; ms *= 2) {
    const expires_at = new Date(Date.now() + ms).toISOString();
    ({ status } = await admin.json('PATCH', `/v1/api-keys/${id}`, { expires_at }));
    expect([200, 422]).toContain(status);
  }
}
const FORBIDDEN = [403, 'permission_denied'];
const UNKNOWN = [401, 'unauthenticated'];

describe('an API key', () => {
  it('is shown once, and afterwards known by its beginning', async () => {
    const created = await admin.json('POST', '/v1/api-keys/', { description: 'for the build' });
    const { api_key: secret, ...shown } = created.body;
    expect(created.headers.get('cache-control')).toBe('no-store');
    expect(secret).toMatch(/^instavm_sk_[\w-]{43}$/);
    expect(shown).toMatchObject({
      name: 'for the build',
      description: 'for the build',
      scope: 'full',
      last_used_at: null,
    });
    expect(secret.startsWith(shown.prefix)).toBe(true);
    const one = await admin.request('GET', `/v1/api-keys/${shown.id}`);
    expect(one.body).toEqual(shown);
    const list = await admin.request('GET', '/v1/api-keys/');
    expect(list.body[0]).toEqual(shown);
    expect(JSON.stringify(list.body)).not.toContain(secret);
    expect((await whoami(apiOf({ ...daemon, apiKey: secret }))).status).toBe(200);
    expect((await admin.request('GET', `/v1/api-keys/${shown.id}`)).body.last_used_at).toMatch(/^\d{4}-/);
    expect(daemon.log()).not.toContain(secret);
  });

  it('is made without a body, as the official client may', async () => {
    expect((await admin.request('POST', '/v1/api-keys/')).body).toMatchObject({ name: 'API key', scope: 'full' });
  });

  it('has a collection with a trailing slash, and members without', async () => {
    const { id } = await make();
    expect(codeOf(await admin.request('GET', '/v1/api-keys'))).toEqual([404, 'route_not_found']);
    expect(codeOf(await admin.json('POST', '/v1/api-keys', {}))).toEqual([404, 'route_not_found']);
    expect(codeOf(await admin.request('GET', `/v1/api-keys/${id}/`))).toEqual([404, 'route_not_found']);
  });

  it.each([
    { scope: 'everything' },
    { permissions: ['read'] },
    { expires_at: '2020-01-01T00:00:00Z' },
    { expires_at: 'tomorrow' },
    { name: '' },
    { name: 'with a \u001b[31m colour' },
    { name: 'turned \u202earound' },
    { sandbox_metadata: { team: 'a' } },
    { scope: 'run', sandbox_metadata: {} },
  ])('is not made of a wish that is not understood: %j', async (fields) => {
    expect(codeOf(await admin.json('POST', '/v1/api-keys/', fields))).toEqual([422, 'invalid_argument']);
  });

  it('is renamed, and given an end', async () => {
    const { id, api } = await make({ name: 'before' });
    const expires_at = new Date(Date.now() + 3_600_000).toISOString();
    const changed = await admin.json('PATCH', `/v1/api-keys/${id}`, { name: 'after', expires_at });
    expect(changed.body).toMatchObject({ name: 'after', expires_at });
    expect((await whoami(api)).status).toBe(200);
    await endSoon(id);
    await expect.poll(async () => codeOf(await whoami(api))).toEqual(UNKNOWN);
    expect(codeOf(await admin.json('PATCH', `/v1/api-keys/${id}`, { scope: 'read' }))).toEqual([
      422,
      'invalid_argument',
    ]);
  });

  it('is revoked at once, also by itself, and for good', async () => {
    const { id, api } = await make();
    expect((await api.request('DELETE', `/v1/api-keys/${id}`)).body).toEqual({ id, revoked: true });
    expect(codeOf(await whoami(api))).toEqual(UNKNOWN);
    for (const method of ['GET', 'DELETE'])
      expect(codeOf(await admin.request(method, `/v1/api-keys/${id}`))).toEqual([404, 'key_not_found']);
    for (const odd of ['0', '-1', 'x', '9'.repeat(30), '%00'])
      expect(codeOf(await admin.request('GET', `/v1/api-keys/${odd}`))).toEqual([404, 'key_not_found']);
  });

  it('is rotated: the same key with another secret, the old one good for a grace if asked', async () => {
    const { id, api, secret } = await make({ name: 'rotated', scope: 'run' });
    const rotate = async (grace?: number) => {
      const { body } = await admin.json('POST', `/v1/api-keys/${id}/rotate`, grace && { grace_seconds: grace });
      expect(body).toMatchObject({ id, name: 'rotated', scope: 'run' });
      return apiOf({ ...daemon, apiKey: body.api_key });
    };
    const second = await rotate(3_600);
    expect(second.daemon.apiKey).not.toBe(secret);
    expect([(await whoami(api)).status, (await whoami(second)).status]).toEqual([200, 200]);
    const third = await rotate(1);
    expect(codeOf(await whoami(api))).toEqual(UNKNOWN);
    await expect.poll(async () => codeOf(await whoami(second))).toEqual(UNKNOWN);
    expect((await whoami(third)).status).toBe(200);
    const last = await rotate();
    expect(codeOf(await whoami(third))).toEqual(UNKNOWN);
    expect((await whoami(last)).status).toBe(200);
  });

  it('that ends gives nobody a key that lasts, itself included', async () => {
    const expires_at = new Date(Date.now() + 3_600_000).toISOString();
    const later = new Date(Date.now() + 7_200_000).toISOString();
    const { api, id, secret } = await make({ expires_at });
    const { body: child } = await api.json('POST', '/v1/api-keys/', { description: 'as the official client asks' });
    expect(child).toMatchObject({ scope: 'full', expires_at });
    const { id: lasting } = await make();
    for (const refused of [
      await api.json('POST', '/v1/api-keys/', { expires_at: later }),
      await api.json('POST', '/v1/api-keys/', { expires_at: null }),
      await api.json('PATCH', `/v1/api-keys/${id}`, { expires_at: null }),
      await api.json('PATCH', `/v1/api-keys/${child.id}`, { expires_at: later }),
      await api.request('POST', `/v1/api-keys/${lasting}/rotate`),
      await api.request('POST', '/api/auth/links'),
    ])
      expect(codeOf(refused)).toEqual(FORBIDDEN);
    expect((await api.json('PATCH', `/v1/api-keys/${id}`, { name: 'renamed' })).status).toBe(200);
    const { body: rotated } = await api.json('POST', `/v1/api-keys/${id}/rotate`, { grace_seconds: 30 });
    expect(rotated).toMatchObject({ id, expires_at });
    // The old secret has less time than the key.
    expect(codeOf(await api.request('POST', `/v1/api-keys/${id}/rotate`))).toEqual(FORBIDDEN);
    expect((await api.json('POST', '/v1/api-keys/', {})).body.expires_at < expires_at).toBe(true);
    expect((await whoami(apiOf({ ...daemon, apiKey: secret }))).status).toBe(200);
  });

  it('comes in a number that has a limit', async () => {
    const { body: present } = await admin.request('GET', '/v1/api-keys/');
    const ids: number[] = [];
    for (let count = present.length; count < 100; count++) ids.push((await make()).id);
    const refused = await admin.json('POST', '/v1/api-keys/', {});
    expect([...codeOf(refused), refused.body.details]).toEqual([429, 'quota_exceeded', { quota: 'keys', limit: 100 }]);
    for (const id of ids) await admin.request('DELETE', `/v1/api-keys/${id}`);
    await make();
  });
});

describe('the scope of a key', () => {
  const asked = async (api: Api) => ({
    list: (await api.request('GET', '/v2/sandboxes')).status,
    files: (await api.request('GET', `/v2/sandboxes/${sandbox}/files/list?path=/`)).status,
    test: (await api.json('POST', `/v2/sandboxes/${sandbox}/egress/test`, { destination: '127.0.0.1:1' })).status,
    execute: (await api.execute(sandbox, 'true')).status,
    create: (await api.json('POST', '/v1/sessions/session', { api_key: api.daemon.apiKey })).status,
    kill: (await api.json('POST', '/kill', { session_id: crypto.randomUUID() })).status,
    keys: (await api.request('GET', '/v1/api-keys/')).status,
    makeKey: (await api.json('POST', '/v1/api-keys/', {})).status,
  });

  it('lets it look, or run sandboxes as well, or everything', async () => {
    const looks = { list: 200, files: 200, test: 200 };
    const runs = { execute: 200, create: 200, kill: 200 };
    const no = <T extends object>(of: T) => Object.fromEntries(Object.keys(of).map((name) => [name, 403]));
    const manages = { keys: 200, makeKey: 200 };
    expect(await asked((await make({ scope: 'read' })).api)).toEqual({ ...looks, ...no(runs), ...no(manages) });
    expect(await asked((await make({ scope: 'run' })).api)).toEqual({ ...looks, ...runs, ...no(manages) });
    expect(await asked((await make({ scope: 'full' })).api)).toEqual({ ...looks, ...runs, ...manages });
  });

  it('is named when it is too small', async () => {
    const { body } = await (await make({ scope: 'read' })).api.execute(sandbox, 'true');
    expect(body).toMatchObject({ code: 'permission_denied', details: { needed: 'run', scope: 'read' } });
    expect(body.detail).toContain('scope run');
  });

  it('holds for WebSockets: who may look sees a terminal and cannot type, and runs nothing', async () => {
    const { api, secret } = await make({ scope: 'read' });
    const { body } = await admin.json('POST', `/v1/sessions/${sandbox}/pty/sessions`, { command: 'cat' });
    const path = `/v1/sessions/${sandbox}/pty/${body.session_id}`;
    const viewer = new WebSocket(`${daemon.baseUrl.replace('http', 'ws')}${path}/connect?api_key=${secret}`);
    await once(viewer, 'message');
    viewer.send(Buffer.from('typed by who may not\n'));
    await sleep(300);
    const { body: terminal } = await admin.request('GET', `/v1/sessions/${sandbox}/pty/sessions/${body.session_id}`);
    expect(terminal.end_offset).toBe(0);
    viewer.close();
    expect(codeOf(await api.json('POST', `/v1/sessions/${sandbox}/pty/sessions/${body.session_id}/token`, {}))).toEqual(
      FORBIDDEN,
    );
    const exec = new WebSocket(`${daemon.baseUrl.replace('http', 'ws')}/v2/sandboxes/${sandbox}/exec`, {
      headers: { 'x-api-key': secret },
    });
    exec.on('error', () => {});
    const [, refusal] = await once(exec, 'unexpected-response');
    expect(refusal.statusCode).toBe(403);
    exec.terminate();
  });
});

describe('a key for some sandboxes', () => {
  it('makes, sees and uses only those', async () => {
    const { api } = await make({ scope: 'run', sandbox_metadata: { team: 'a' } });
    const { body: made } = await api.json('POST', '/v2/sandboxes', { metadata: { more: 1 } });
    expect(made.metadata).toEqual({ team: 'a', more: 1 });
    expect((await api.request('GET', '/v2/sandboxes')).body.sandboxes.map(({ id }: { id: string }) => id)).toEqual([
      made.id,
    ]);
    expect((await api.execute(made.id, 'echo hello')).body.stdout).toBe('hello\n');
    expect(codeOf(await api.execute(sandbox, 'true'))).toEqual([404, 'sandbox_not_found']);
  });

  it('cannot put one out of its own sight', async () => {
    const { api } = await make({ scope: 'run', sandbox_metadata: { team: 'a' } });
    expect(codeOf(await api.json('POST', '/v2/sandboxes', { metadata: { team: 'b' } }))).toEqual(FORBIDDEN);
    const { body: made } = await api.json('POST', '/v2/sandboxes', {});
    expect(codeOf(await api.json('PATCH', `/v2/sandboxes/${made.id}`, { metadata: { team: 'b' } }))).toEqual(FORBIDDEN);
    expect(codeOf(await api.json('POST', `/v2/sandboxes/${made.id}/fork`, { metadata: { team: 'b' } }))).toEqual(
      FORBIDDEN,
    );
    expect((await api.json('POST', `/v2/sandboxes/${made.id}/fork`, {})).body.sandboxes[0].metadata).toEqual({
      team: 'a',
    });
  });

  it('sees their snapshots and shares, and no others', async () => {
    const { api } = await make({ scope: 'run', sandbox_metadata: { team: 'c' } });
    const { body: mine } = await api.json('POST', '/v2/sandboxes', {});
    const snapshot = (await api.json('POST', `/v2/sandboxes/${mine.id}/snapshots`, {})).body;
    const share = (await api.json('POST', '/v1/shares', { session_id: mine.id, port: 80 })).body;
    await admin.json('POST', `/v2/sandboxes/${sandbox}/snapshots`, {});
    await admin.json('POST', '/v1/shares', { session_id: sandbox, port: 80 });
    const ids = (list: { id?: string; share_id?: string }[]) => list.map(({ id, share_id }) => id ?? share_id);
    expect(ids((await api.request('GET', '/v2/snapshots')).body.snapshots)).toEqual([snapshot.id]);
    expect(ids((await api.request('GET', '/v1/shares')).body.shares)).toEqual([share.share_id]);
    expect((await api.json('POST', '/v2/sandboxes', { snapshot_id: snapshot.id })).status).toBe(201);
    expect((await api.request('DELETE', `/v1/shares/${share.share_id}`)).status).toBe(200);
    expect((await api.request('DELETE', `/v2/snapshots/${snapshot.id}`)).status).toBe(200);
  });

  it('pages through its sandboxes as if there were no others', async () => {
    const { api } = await make({ scope: 'run', sandbox_metadata: { team: 'e' } });
    const made: string[] = [];
    for (const as of [api, admin, api, admin, api]) {
      const { id } = (await as.json('POST', '/v2/sandboxes', {})).body;
      if (as === api) made.unshift(id);
    }
    const page = async (query: string) => {
      const { status, body } = await api.request('GET', `/v2/sandboxes?${query}`);
      return status === 200 ? body.sandboxes.map(({ id }: { id: string }) => id) : body.code;
    };
    expect(await page('')).toEqual(made);
    expect(await page('limit=2')).toEqual(made.slice(0, 2));
    expect(await page(`limit=2&before=${made[1]}`)).toEqual(made.slice(2));
    expect(await page(`before=${made[2]}`)).toEqual([]);
    await admin.request('DELETE', `/v2/sandboxes/${made[0]}`);
    expect(await page('ended=false&limit=1')).toEqual([made[1]]);
    expect(await page('ended=true&limit=1')).toEqual([made[0]]);
    expect(await page(`before=${sandbox}`)).toBe('sandbox_not_found');
  });

  it('pages through their shares as if there were no others', async () => {
    const { api } = await make({ scope: 'run', sandbox_metadata: { team: 'd' } });
    const { body: mine } = await api.json('POST', '/v2/sandboxes', {});
    const open = async (as: Api, session_id: string, port: number): Promise<string> =>
      (await as.json('POST', '/v1/shares', { session_id, port })).body.share_id;
    const first = await open(api, mine.id, 81);
    for (const port of [81, 82]) await open(admin, sandbox, port);
    const second = await open(api, mine.id, 82);
    const page = async (query: string) =>
      (await api.request('GET', `/v1/shares?limit=1${query}`)).body.shares.map(
        (share: { share_id: string }) => share.share_id,
      );
    expect([await page(''), await page(`&before=${second}`), await page(`&before=${first}`)]).toEqual([
      [second],
      [first],
      [],
    ]);
  });

  it('sees the custom domains of their shares, and changes none', async () => {
    const { api } = await make({ scope: 'run', sandbox_metadata: { team: 'e' } });
    const { body: mine } = await api.json('POST', '/v2/sandboxes', {});
    const domainOf = async (session_id: string, domain: string): Promise<number> => {
      const { share_id } = (await admin.json('POST', '/v1/shares', { session_id, port: 83 })).body;
      return (await admin.json('POST', '/v1/custom-domains', { domain, share_id })).body.id;
    };
    const [own, other] = [await domainOf(mine.id, 'own.example.com'), await domainOf(sandbox, 'other.example.com')];
    const { body: list } = await api.request('GET', '/v1/custom-domains');
    expect(list.domains.map(({ id }: { id: number }) => id)).toEqual([own]);
    expect((await api.request('GET', `/v1/custom-domains/${own}/health`)).status).toBe(200);
    expect(codeOf(await api.request('GET', `/v1/custom-domains/${other}`))).toEqual([404, 'domain_not_found']);
    for (const [method, path] of [
      ['POST', `/${own}/verify`],
      ['DELETE', `/${own}`],
    ] as const)
      expect(codeOf(await api.request(method, `/v1/custom-domains${path}`))).toEqual(FORBIDDEN);
    await admin.request('DELETE', `/v2/sandboxes/${mine.id}`);
    expect((await api.request('GET', '/v1/custom-domains')).body.domains).toEqual([]);
  });
});

describe('what is open by a key', () => {
  /** A stream, a request that waits, a command and a terminal, under way when this resolves. @returns how each ended, when it has */
  async function openAll(api: Api, secret: string): Promise<Record<string, Promise<unknown>>> {
    const base = daemon.baseUrl.replace('http', 'ws');
    const headers = { 'x-api-key': secret };
    const { body: pty } = await admin.json('POST', `/v1/sessions/${sandbox}/pty/sessions`, { command: 'cat' });
    const terminal = new WebSocket(`${base}/v1/sessions/${sandbox}/pty/${pty.session_id}/connect`, { headers });
    const exec = new WebSocket(`${base}/v2/sandboxes/${sandbox}/exec`, { headers });
    const closeOf = (socket: WebSocket) => once(socket, 'close').then(([code]) => code as number);
    const ends = { terminal: closeOf(terminal), exec: closeOf(exec) };
    await Promise.all([once(terminal, 'message'), once(exec, 'open')]);
    exec.send(JSON.stringify({ type: 'start', argv: ['sleep', '60'] }));
    await once(exec, 'message');
    const followed = await fetch(`${daemon.baseUrl}/v2/sandboxes/${sandbox}/egress/log?follow=true`, { headers });
    const failed = (error: Error) => error.name;
    const marker = `key-${crypto.randomUUID()}`;
    const execute = api.execute(sandbox, `exec -a ${marker} sleep 60`).then(() => 'answered', failed);
    const running = async () => (await admin.execute(sandbox, `pgrep -fc '^${marker}'`)).body.stdout;
    await expect.poll(running).toBe('1\n');
    return { ...ends, stream: followed.text().then(() => 'ended', failed), execute };
  }
  const CUT = { terminal: 4401, exec: 4401, stream: 'TypeError', execute: 'TypeError' };

  async function endsOf(open: Record<string, Promise<unknown>>): Promise<Record<string, unknown>> {
    const late = sleep(60_000, 'still open', { ref: false });
    const each = Object.entries(open).map(async ([name, end]) => [name, await Promise.race([end, late])]);
    return Object.fromEntries(await Promise.all(each));
  }

  it('ends when it is revoked', async () => {
    const { api, id, secret } = await make({ scope: 'run' });
    const other = await make({ scope: 'run' });
    const open = await openAll(api, secret);
    const untouched = stream(other.api, sandbox, { argv: ['sleep', '1'] });
    await admin.request('DELETE', `/v1/api-keys/${id}`);
    expect(await endsOf(open)).toEqual(CUT);
    expect(await (await untouched).last()).toMatchObject({ type: 'exit', exit_code: 0 });
  });

  it('ends when it is rotated, and when its time is over', async () => {
    const { api, id, secret } = await make({ scope: 'run' });
    const beganAt = performance.now();
    const open = await openAll(api, secret);
    const openingMs = performance.now() - beganAt;
    await admin.request('POST', `/v1/api-keys/${id}/rotate`);
    expect(await endsOf(open)).toEqual(CUT);
    // Time enough to open all that again.
    const expires_at = new Date(Date.now() + 1_500 + 10 * openingMs).toISOString();
    const expiring = await make({ scope: 'run', expires_at });
    expect(await endsOf(await openAll(expiring.api, expiring.secret))).toEqual(CUT);
  });

  it('ends with the grace of the secret that opened it, before or during it, whatever becomes of the key', async () => {
    const { api, id, secret } = await make({ scope: 'run' });
    const follow = (key: string) =>
      fetch(`${daemon.baseUrl}/v2/sandboxes/${sandbox}/egress/log?follow=true`, { headers: { 'x-api-key': key } });
    const endOf = (answer: Response) =>
      answer.text().then(
        () => 'ended',
        (error: Error) => error.name,
      );
    const beganAt = performance.now();
    const before = endOf(await follow(secret));
    // Time enough to do that again.
    const grace_seconds = Math.ceil(1 + (20 * (performance.now() - beganAt)) / 1_000);
    const { body: first } = await admin.json('POST', `/v1/api-keys/${id}/rotate`, { grace_seconds });
    const during = endOf(await follow(secret));
    await admin.json('PATCH', `/v1/api-keys/${id}`, { expires_at: null });
    const { body: second } = await admin.json('POST', `/v1/api-keys/${id}/rotate`, { grace_seconds: 3_600 });
    const [middle, last] = [endOf(await follow(first.api_key)), endOf(await follow(second.api_key))];
    expect(codeOf(await whoami(api))).toEqual(UNKNOWN);
    expect(await endsOf({ before, during })).toEqual({ before: 'TypeError', during: 'TypeError' });
    const open = sleep(200, 'open');
    expect(await Promise.all([Promise.race([middle, open]), Promise.race([last, open])])).toEqual(['open', 'open']);
    await admin.request('DELETE', `/v1/api-keys/${id}`);
    expect(await endsOf({ middle, last })).toEqual({ middle: 'TypeError', last: 'TypeError' });
  });

  it.each<[what: string, end: (id: number) => Promise<Answer>]>([
    ['is revoked', (id) => admin.request('DELETE', `/v1/api-keys/${id}`)],
    ['is rotated', (id) => admin.json('POST', `/v1/api-keys/${id}/rotate`, { grace_seconds: 60 })],
    ['is given another end', (id) => admin.json('PATCH', `/v1/api-keys/${id}`, { expires_at: null })],
  ])('includes tokens of terminals that nobody used yet when it %s', async (_, end) => {
    const { api, id } = await make({ scope: 'run' });
    const { body: pty } = await admin.json('POST', `/v1/sessions/${sandbox}/pty/sessions`, { command: 'cat' });
    const { body } = await api.json('POST', `/v1/sessions/${sandbox}/pty/sessions/${pty.session_id}/token`, {});
    expect((await end(id)).status).toBe(200);
    const url = `${daemon.baseUrl.replace('http', 'ws')}/v1/sessions/${sandbox}/pty/${pty.session_id}/connect`;
    const socket = new WebSocket(`${url}?token=${body.token}`);
    expect((await once(socket, 'close'))[0]).toBe(4401);
  });
});

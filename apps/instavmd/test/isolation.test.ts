/**
 * Nobody reaches what is another's: every route of the OpenAPI document, asked with the key of another account, and with one of the same
 * account that is for other sandboxes, about things that are not theirs. A route that is not in the table fails the test.
 */
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { asAnother } from './accounts.ts';
import { type Answer, type Api, apiOf } from './api.ts';

type Victim = {
  account: string;
  sid: string;
  vm: string;
  snapshot: string;
  share: string;
  link: string;
  domain: string;
  task: string;
  event: string;
  pty: string;
  key: string;
};

type Attempt = {
  /** Which of the victim's ids stands for `{id}`. */
  readonly id?: keyof Victim;
  readonly query?: string;
  readonly body?: unknown | ((victim: Victim) => unknown);
  readonly raw?: { readonly type: string; readonly body: (victim: Victim) => string };
  /** `absent` (404, or 403): there is no such thing for them. `own`: an answer about their own things. */
  readonly expect: 'absent' | 'own';
  /** It tells of all sandboxes of the account. */
  readonly isOfAll?: boolean;
};

const absent = (rest: Omit<Attempt, 'expect'> = {}): Attempt => ({ ...rest, expect: 'absent' });
const own = (rest: Omit<Attempt, 'expect'> = {}): Attempt => ({ ...rest, expect: 'own' });
const NO_EGRESS = {
  allow_http: false,
  allow_https: false,
  allow_public_repos: false,
  allowed_domains: [],
  allowed_cidrs: [],
};
const ENTRIES = { entries: [{ env_name: 'A', value: 'b' }] };
const LOGIN = {
  state: 's'.repeat(43),
  code_challenge: 'c'.repeat(43),
  code_challenge_method: 'S256',
  redirect_uri: 'http://127.0.0.1:4321/callback',
};
const form = (victim: Victim): string =>
  `${[
    ['remote_path', '/x'],
    ['session_id', victim.sid],
    ['recursive', 'false'],
  ]
    .map(([name, value]) => `--b\r\ncontent-disposition: form-data; name="${name}"\r\n\r\n${value}\r\n`)
    .join('')}--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\nx\r\n--b--\r\n`;
const sandbox = (rest: Omit<Attempt, 'expect' | 'id'> = {}): Attempt => absent({ id: 'sid', ...rest });
const pty = { '': {}, '/resize': { cols: 1, rows: 1 }, '/signal': { signal: 'SIGKILL' }, '/token': {} };

const TABLE: Readonly<Record<string, Attempt>> = {
  'POST /v1/sessions/session': own({ body: { api_key: 'unused' } }),
  'GET /v1/sessions/session/{sid}': absent(),
  'GET /v1/sessions/status/{sid}': absent(),
  'GET /v1/sessions/usage/{sid}': absent(),
  'GET /v1/sessions/app-url/{sid}': absent(),
  'GET /v1/sessions/sandboxes': own(),
  // Idempotent by contract, for sessions that never were too; that it ended nothing is seen below.
  'POST /kill': own({ body: ({ sid }: Victim) => ({ session_id: sid }) }),
  'POST /execute': absent({ body: ({ sid }: Victim) => ({ session_id: sid, command: 'true' }) }),
  'POST /execute_async': absent({ body: ({ sid }: Victim) => ({ session_id: sid, command: 'true' }) }),
  'GET /v1/executions/{task}': absent(),
  'POST /upload': absent({ raw: { type: 'multipart/form-data; boundary=b', body: form } }),
  'POST /download': absent({ body: ({ sid }: Victim) => ({ session_id: sid, filename: '/etc/hostname' }) }),
  'POST /v1/vms': absent({ body: ({ sid }: Victim) => ({ session_id: sid }) }),
  'GET /v1/vms': own(),
  'GET /v1/vms/': own(),
  'GET /v1/vms/{vm}': absent(),
  'PATCH /v1/vms/{vm}': absent({ body: { metadata: {} } }),
  'DELETE /v1/vms/{vm}': absent(),
  'POST /v1/vms/{vm}/suspend': absent(),
  'POST /v1/vms/{vm}/resume': absent(),
  'POST /v1/vms/{vm}/clone': absent(),
  'POST /v1/vms/{vm}/stage-env': absent({ body: ENTRIES }),
  'POST /v1/vms/{vm}/snapshot': absent(),
  'GET /v1/snapshots': own(),
  'GET /v1/snapshots/{id}': absent({ id: 'snapshot' }),
  'DELETE /v1/snapshots/{id}': absent({ id: 'snapshot' }),
  'POST /v1/shares': absent({ body: ({ vm }: Victim) => ({ vm_id: vm, port: 8000 }) }),
  'GET /v1/shares': own(),
  'GET /v1/shares/{id}': absent({ id: 'share' }),
  'PATCH /v1/shares/{id}': absent({ id: 'share', body: { is_public: true } }),
  'DELETE /v1/shares/{id}': absent({ id: 'share' }),
  'POST /v1/shares/{id}/token': absent({ id: 'share' }),
  'DELETE /v1/shares/{id}/links/{link}': absent({ id: 'share' }),
  'POST /v1/custom-domains': absent({ body: ({ share }: Victim) => ({ domain: 'b.example.com', share_id: share }) }),
  'GET /v1/custom-domains': own(),
  'GET /v1/custom-domains/{id}': absent({ id: 'domain' }),
  'POST /v1/custom-domains/{id}/verify': absent({ id: 'domain' }),
  'GET /v1/custom-domains/{id}/health': absent({ id: 'domain' }),
  'DELETE /v1/custom-domains/{id}': absent({ id: 'domain' }),
  // The same for everyone.
  'GET /v2/previews/ca': own(),
  'GET /v1/users/me': own(),
  'GET /v1/users/me/usage-breakdown': own(),
  'GET /v1/credits/summary': own(),
  'GET /v1/credits/allocation': own(),
  'GET /v1/credits/usage': own({ isOfAll: true }),
  'GET /v1/credits/check': own({ query: '?usage_type=vm_execution&required_credits=1' }),
  'GET /v1/credits/rates': own(),
  'GET /v1/credits/usage/trends': own(),
  'GET /v1/credits/usage/forecasting': own(),
  'GET /v1/audit/catalog': own(),
  'GET /v1/audit/events': own({ isOfAll: true }),
  // Numbered per account: the ids of one are those of another.
  'GET /v1/audit/events/{event}': absent(),
  'GET /v2/quotas': own(),
  // Only the administrator's.
  'PATCH /v2/accounts/{account}/quotas': absent({ body: { sandboxes: 1 } }),
  'POST /v2/credits/grants': absent({ body: { dollars: 1 } }),
  'POST /v1/api-keys/': own({ body: {} }),
  'GET /v1/api-keys/': own(),
  'GET /v1/api-keys/{id}': absent({ id: 'key' }),
  'PATCH /v1/api-keys/{id}': absent({ id: 'key', body: { name: 'mine' } }),
  'DELETE /v1/api-keys/{id}': absent({ id: 'key' }),
  'POST /v1/api-keys/{id}/rotate': absent({ id: 'key' }),
  'GET /v1/egress/session/{sid}': absent(),
  'POST /v1/egress/session/{sid}': absent({ body: NO_EGRESS }),
  'GET /v1/egress/vm/{vm}': absent(),
  'POST /v1/egress/vm/{vm}': absent({ body: NO_EGRESS }),
  'GET /v2/sandboxes/{id}/egress': sandbox(),
  'PUT /v2/sandboxes/{id}/egress': sandbox({ body: NO_EGRESS }),
  'POST /v2/sandboxes/{id}/egress/test': sandbox({ body: { destination: '127.0.0.1:80' } }),
  'GET /v2/sandboxes/{id}/egress/log': sandbox(),
  'POST /v2/sandboxes': absent({ body: ({ snapshot }: Victim) => ({ snapshot_id: snapshot }) }),
  'GET /v2/sandboxes': own(),
  'GET /v2/sandboxes/{id}': sandbox(),
  'DELETE /v2/sandboxes/{id}': sandbox(),
  'PATCH /v2/sandboxes/{id}': sandbox({ body: { metadata: {} } }),
  'GET /v2/sandboxes/{id}/stats': sandbox(),
  'GET /v2/sandboxes/{id}/metrics': sandbox(),
  'POST /v2/sandboxes/{id}/suspend': sandbox(),
  'POST /v2/sandboxes/{id}/resume': sandbox(),
  'POST /v2/sandboxes/{id}/snapshots': sandbox(),
  'POST /v2/sandboxes/{id}/fork': sandbox(),
  'GET /v2/snapshots': own(),
  'GET /v2/snapshots/{id}': absent({ id: 'snapshot' }),
  'DELETE /v2/snapshots/{id}': absent({ id: 'snapshot' }),
  'GET /v2/sandboxes/{id}/files': sandbox({ query: '?path=/etc/hostname' }),
  'PUT /v2/sandboxes/{id}/files': sandbox({
    query: '?path=/x',
    raw: { type: 'application/octet-stream', body: () => 'x' },
  }),
  'GET /v2/sandboxes/{id}/files/stat': sandbox({ query: '?path=/' }),
  'GET /v2/sandboxes/{id}/files/list': sandbox({ query: '?path=/' }),
  'POST /v2/sandboxes/{id}/files/mkdir': sandbox({ body: { path: '/x' } }),
  'POST /v2/sandboxes/{id}/files/remove': sandbox({ body: { path: '/x' } }),
  'POST /v2/sandboxes/{id}/files/rename': sandbox({ body: { from: '/x', to: '/y' } }),
  'GET /v2/sandboxes/{id}/tar': sandbox({ query: '?path=/' }),
  'PUT /v2/sandboxes/{id}/tar': sandbox({ query: '?path=/x', raw: { type: 'application/x-tar', body: () => '' } }),
  'GET /v2/sandboxes/{id}/files/watch': sandbox({ query: '?path=/' }),
  // For pages of ours alone: a key is nothing to them.
  'GET /api/auth/session': absent(),
  'POST /api/auth/sign-up': absent({ body: { email: 'x@example.com', password: 'long enough', name: 'X' } }),
  'POST /api/auth/sign-in': absent({ body: { email: 'admin@localhost.test', password: 'a guess' } }),
  'POST /api/auth/link': absent({ body: { token: 'a guess' } }),
  'POST /api/auth/sign-out': absent(),
  'POST /api/auth/password': absent({ body: { present: 'a guess', next: 'long enough' } }),
  'POST /api/auth/links': absent(),
  'POST /api/auth/invitations': absent(),
  'POST /api/cli-auth/start': own({ body: LOGIN }),
  'POST /api/cli-auth/exchange': absent({ body: { pairing_id: 'a', code: 'b', code_verifier: 'c'.repeat(43) } }),
  'GET /api/cli-auth/pairings/{id}': absent({ id: 'key' }),
  'POST /api/cli-auth/pairings/{id}': absent({ id: 'key', body: { approve: true } }),
  ...ptyRoutes('/v1/sessions/{id}', 'sid'),
  ...ptyRoutes('/v1/vms/{id}', 'vm'),
};

function ptyRoutes(scope: string, id: keyof Victim): Record<string, Attempt> {
  const base = `${scope}/pty/sessions`;
  const one = Object.entries(pty).map(([tail, body]) => [`POST ${base}/{pty}${tail}`, absent({ id, body })]);
  return {
    [`GET ${base}`]: absent({ id }),
    [`POST ${base}`]: absent({ id, body: {} }),
    [`GET ${base}/{pty}`]: absent({ id }),
    [`DELETE ${base}/{pty}`]: absent({ id }),
    ...Object.fromEntries(one.slice(1)),
  };
}

let daemon: TestDaemon;
let owner: Api;
let victim: Victim;
let document: Record<string, Record<string, { 'x-scope'?: string }>>;
/** Who asks, by what they are. */
const strangers: Record<string, Api> = {};

beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'fake' });
  owner = apiOf(daemon);
  const post = async (path: string, body: object) => (await owner.json('POST', path, body)).body;
  const sid = await owner.createSession({ metadata: { team: 'a' } });
  const { vm_id: vm } = (await owner.request('GET', `/v1/sessions/session/${sid}`)).body;
  const share = (await post('/v1/shares', { session_id: sid, port: 3000 })).share_id;
  victim = {
    ...{ sid, vm, account: (await owner.request('GET', '/v1/users/me')).body.id },
    snapshot: (await post(`/v2/sandboxes/${sid}/snapshots`, { name: 'of the victim' })).id,
    ...{ share, link: (await post(`/v1/shares/${share}/token`, {})).link_id },
    domain: String((await post('/v1/custom-domains', { domain: 'a.example.com', share_id: share })).id),
    task: (await post('/execute_async', { session_id: sid, command: 'echo secret', language: 'bash' })).task_id,
    pty: (await post(`/v1/sessions/${sid}/pty/sessions`, {})).session_id,
    key: String((await post('/v1/api-keys/', { name: 'of the victim' })).id),
    event: '',
  };
  victim.event = (await owner.request('GET', '/v1/audit/events?limit=1')).body.items[0].id;
  const restricted = await post('/v1/api-keys/', { scope: 'run', sandbox_metadata: { team: 'b' } });
  strangers['another account'] = await asAnother(daemon, 'b@example.com');
  strangers['a key for other sandboxes'] = apiOf({ ...daemon, apiKey: restricted.api_key });
  document = (await owner.request('GET', '/openapi.json')).body.paths;
});
afterAll(() => daemon.stop());

const operations = (): string[] =>
  Object.entries(document).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );

function ask(api: Api, operation: string, { id, query = '', body, raw }: Attempt): Promise<Answer> {
  const [method = '', path = ''] = operation.split(' ');
  const fill = (_: string, name: string): string =>
    encodeURIComponent(victim[name === 'id' ? (id ?? 'sid') : (name as keyof Victim)]);
  const url = path.replaceAll(/\{(\w+)\}/g, fill) + query;
  if (raw !== undefined)
    return api.request(method, url, { body: raw.body(victim), headers: { 'content-type': raw.type } });
  const wanted = typeof body === 'function' ? body(victim) : body;
  if (operation === 'POST /v1/sessions/session')
    return api.json(method, url, { ...wanted, api_key: api.daemon.apiKey });
  return wanted === undefined ? api.request(method, url) : api.json(method, url, wanted);
}

describe('what belongs to somebody else', () => {
  it('is really there', () => {
    for (const [what, id] of Object.entries(victim))
      expect([what, id]).toEqual([what, expect.stringMatching(/^(?!undefined).+/)]);
  });

  it('has a line in the table for every route, and no line for none', () => {
    expect(Object.keys(TABLE).sort()).toEqual(operations().sort());
  });

  it.each(Object.entries(TABLE))('is out of reach of %s', async (operation, attempt) => {
    const [method = '', path = ''] = operation.split(' ');
    for (const [who, api] of Object.entries(strangers)) {
      const answer = await ask(api, operation, attempt);
      const text = JSON.stringify(answer.body);
      const scope = document[path]?.[method.toLowerCase()]?.['x-scope'];
      const needsMore = who === 'a key for other sandboxes' && (attempt.isOfAll || scope === 'full');
      if (needsMore) expect([who, answer.status, answer.body.code]).toEqual([who, 403, 'permission_denied']);
      else if (attempt.expect === 'absent')
        expect([who, answer.status, text], text).toEqual([who, expect.toBeOneOf([403, 404]), text]);
      else {
        expect([who, answer.status], text).toEqual([who, 200]);
        for (const secret of [victim.vm, victim.snapshot, victim.share, victim.task, 'a.example.com', 'of the victim'])
          expect(text).not.toContain(secret);
        if (operation !== 'POST /kill') expect(text).not.toContain(victim.sid);
      }
    }
  });

  it.each([
    ['exec', () => `/v2/sandboxes/${victim.sid}/exec`],
    ['a terminal of the session', () => `/v1/sessions/${victim.sid}/pty/${victim.pty}/connect`],
    ['a terminal of the VM', () => `/v1/vms/${victim.vm}/pty/${victim.pty}/connect`],
  ])('opens no WebSocket to %s', async (_, path) => {
    for (const api of Object.values(strangers)) {
      const socket = new WebSocket(daemon.baseUrl.replace('http', 'ws') + path(), {
        headers: { 'x-api-key': api.daemon.apiKey },
      });
      const refusal = await new Promise((resolve) => {
        socket.once('unexpected-response', (request, response) => {
          resolve(response.statusCode);
          request.destroy();
        });
        socket.once('open', () => resolve('open'));
        socket.on('error', () => {});
      });
      expect(refusal).toBe(404);
    }
  });

  it('is as it was', async () => {
    const get = async (path: string) => (await owner.request('GET', path)).body;
    expect(await get(`/v2/sandboxes/${victim.sid}`)).toMatchObject({
      state: 'running',
      incarnation_id: victim.vm,
      metadata: { team: 'a' },
    });
    expect(await get(`/v1/snapshots/${victim.snapshot}`)).toMatchObject({ status: 'ready' });
    expect(await get(`/v1/shares/${victim.share}`)).toMatchObject({ port: 3000, is_public: false });
    expect(await get(`/v1/custom-domains/${victim.domain}`)).toMatchObject({
      domain: 'a.example.com',
      status: 'pending',
    });
    expect(await get(`/v1/api-keys/${victim.key}`)).toMatchObject({ name: 'of the victim' });
    expect(await get(`/v1/sessions/${victim.sid}/pty/sessions/${victim.pty}`)).toMatchObject({ alive: true, cols: 80 });
    expect((await get(`/v2/sandboxes/${victim.sid}/egress`)).is_default).toBe(true);
    expect(
      (await get('/v2/sandboxes')).sandboxes.filter(
        ({ metadata }: { metadata: object }) => 'team' in metadata && metadata.team === 'a',
      ),
    ).toHaveLength(1);
  });
});

/** What is malformed is named, and nothing that a client sends is answered with an error of the server. */

import { once } from 'node:events';
import { connect } from 'node:net';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf } from './api.ts';

describe('bad input', () => {
  let daemon: TestDaemon;
  let api: Api;
  let id: string;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    id = await api.createSession();
  });
  afterAll(() => daemon.stop());

  const key = () => ({ api_key: daemon.apiKey });
  it.each<[what: string, method: string, path: string, body: () => object, field: string]>([
    ['an unknown field', 'POST', '/v1/sessions/session', () => ({ ...key(), flavour: 1 }), 'flavour'],
    ['a missing key', 'POST', '/v1/sessions/session', () => ({}), 'api_key'],
    [
      'too short a life',
      'POST',
      '/v1/sessions/session',
      () => ({ ...key(), vm_lifetime_seconds: 19 }),
      'vm_lifetime_seconds',
    ],
    [
      'too long a life',
      'POST',
      '/v1/sessions/session',
      () => ({ ...key(), vm_lifetime_seconds: 86401 }),
      'vm_lifetime_seconds',
    ],
    [
      'a life that is no number',
      'POST',
      '/v1/sessions/session',
      () => ({ ...key(), vm_lifetime_seconds: '60' }),
      'vm_lifetime_seconds',
    ],
    ['too little memory', 'POST', '/v1/sessions/session', () => ({ ...key(), memory_mb: 64 }), 'memory_mb'],
    ['an odd number of vCPUs', 'POST', '/v1/sessions/session', () => ({ ...key(), vcpu_count: 3 }), 'vcpu_count'],
    [
      'a variable name with a space',
      'POST',
      '/v1/sessions/session',
      () => ({ ...key(), env: { 'A B': 'x' } }),
      'env.A B',
    ],
    ['a value with a NUL', 'POST', '/v1/sessions/session', () => ({ ...key(), env: { A: 'x\0y' } }), 'env.A'],
    ['too large an environment', 'POST', '/v2/sandboxes', () => ({ env: large(40) }), 'env'],
    ['metadata that is a list', 'POST', '/v2/sandboxes', () => ({ metadata: [1] }), 'metadata'],
    ['metadata without measure', 'POST', '/v2/sandboxes', () => ({ metadata: { a: 'x'.repeat(20_000) } }), 'metadata'],
    ['metadata too deep to search', 'POST', '/v2/sandboxes', () => ({ metadata: { a: nested(1_200) } }), 'metadata'],
    ['two unknown fields', 'POST', '/v2/sandboxes', () => ({ a: 1, b: 2 }), 'b'],
    ['a bad field of a VM', 'POST', '/v1/vms', () => ({ memory_mb: 'lots', anything: 1 }), 'memory_mb'],
    ['no command', 'POST', '/execute', () => ({ session_id: id }), 'command'],
    ['a command with a NUL', 'POST', '/execute', () => ({ session_id: id, command: 'a\0b' }), 'command'],
    ['another language', 'POST', '/execute', () => ({ session_id: id, command: '1', language: 'ruby' }), 'language'],
    ['no time', 'POST', '/execute', () => ({ session_id: id, command: '1', timeout: 0 }), 'timeout'],
    ['no session', 'POST', '/kill', () => ({}), 'session_id'],
    ['a policy with an unknown field', 'POST', '/v1/egress/session/x', () => ({ allow_ftp: true }), 'allow_ftp'],
    ['a relative path', 'POST', '/v2/sandboxes/x/files/mkdir', () => ({ path: 'a' }), 'path'],
    ['a mode that is no octal', 'POST', '/v2/sandboxes/x/files/mkdir', () => ({ path: '/a', mode: '0999' }), 'mode'],
    ['a NUL in a path', 'POST', '/v2/sandboxes/x/files/rename', () => ({ from: '/a\0', to: '/b' }), 'from'],
  ])('is 422 with the field named: %s', async (_what, method, path, body, field) => {
    const answer = await api.json(method, path, body());
    expect([answer.status, answer.body.code]).toEqual([422, 'invalid_argument']);
    expect(answer.body.detail).toContain(field);
    expect(answer.body.details.fields.map((problem: { path: string }) => problem.path)).toContain(field);
    expect(answer.body).toMatchObject({ retryable: 'no', hint: expect.any(String), request_id: expect.any(String) });
  });

  it.each([
    ['text that is no JSON', '{"a":', 400],
    ['no body', '', 422],
    ['a list', '[]', 422],
    ['null', 'null', 422],
    ['a prototype', '{"__proto__":{"a":1}}', 400],
    ['nesting without end', `{"metadata":{"a":${'['.repeat(100_000)}${']'.repeat(100_000)}}}`, 422],
    ['more than 8 MiB', `{"metadata":{"a":"${'x'.repeat(9_000_000)}"}}`, 413],
  ])('is refused as a whole: %s', async (_what, body, status) => {
    const headers = { 'content-type': 'application/json' };
    const answer = await api.request('POST', '/v2/sandboxes', { body, headers });
    expect(answer.status).toBe(status);
    expect(answer.body.detail).toEqual(expect.any(String));
  });

  it('cannot make a list fail, neither by what is looked for nor by what is there', async () => {
    const list = (metadata: object) =>
      api.request('GET', `/v1/sessions/sandboxes?metadata=${encodeURIComponent(JSON.stringify(metadata))}`);
    expect((await list({ a: nested(1_200) })).status).toBe(422);
    const made = await api.json('POST', '/v2/sandboxes', { metadata: { team: 'deep', a: nested(31) } });
    expect(made.status).toBe(201);
    expect((await api.json('POST', `/v2/sandboxes/${made.body.id}/snapshots`, {})).status).toBe(201);
    const { body } = await list({ team: 'deep' });
    expect(body.map((vm: { session_id: string }) => vm.session_id)).toEqual([made.body.id]);
    const restricted = { scope: 'read', sandbox_metadata: { team: 'deep', a: nested(31) } };
    const { body: key } = await api.json('POST', '/v1/api-keys/', restricted);
    const { body: found } = await apiOf({ ...daemon, apiKey: key.api_key }).request('GET', '/v2/snapshots');
    expect(found.snapshots).toHaveLength(1);
  });

  it('is refused by name when the path is no text', async () => {
    const answer = await api.request('GET', '/v2/sandboxes/%ff%fe');
    expect([answer.status, answer.body.code]).toEqual([400, 'malformed_request']);
  });

  it('is refused in the same form when it is not even HTTP', async () => {
    const { hostname, port } = new URL(daemon.baseUrl);
    const socket = connect(Number(port), hostname);
    socket.write('NONSENSE\r\n\r\n');
    let text = '';
    for await (const piece of socket) text += piece;
    expect(text).toMatch(/^HTTP\/1.1 400 /);
    expect(JSON.parse(text.split('\r\n\r\n')[1] ?? '')).toMatchObject({ code: 'malformed_request' });
  });

  it('is not an offer of another protocol, as of curl --http2: it is answered as if there were none', async () => {
    const { hostname, port } = new URL(daemon.baseUrl);
    const socket = connect(Number(port), hostname);
    socket.write(
      `GET /healthz HTTP/1.1\r\nhost: ${hostname}\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n`,
    );
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1.1 200 /);
    socket.destroy();
  });

  it('is no more than that as a frame, also of a stranger who is only told that the key is wrong', async () => {
    const { hostname, port } = new URL(daemon.baseUrl);
    const socket = connect(Number(port), hostname);
    socket.write(
      `GET /v1/sessions/${id}/pty/any/connect?api_key=wrong HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
        'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n',
    );
    expect(String((await once(socket, 'data'))[0])).toMatch(/^HTTP\/1.1 101 /);
    // All its reserved bits are set (RFC 6455 §5.2).
    socket.end(Buffer.alloc(4, 0xff));
    await once(socket.resume(), 'close');
    expect((await fetch(`${daemon.baseUrl}/healthz`)).status).toBe(200);
  });

  it.each([
    ['no key', {}],
    ['another key', { 'x-api-key': 'instavm_sk_wrong' }],
    ['an empty key', { 'x-api-key': '' }],
    ['a key without end', { 'x-api-key': 'x'.repeat(8000) }],
    ['a bearer token', { authorization: 'Bearer x' }],
  ])('is 401 with %s, everywhere', async (_what, headers) => {
    for (const path of [
      '/v1/users/me',
      '/v2/sandboxes',
      '/v1/vms',
      '/v1/vaults',
      `/v2/sandboxes/${id}/files?path=/x`,
    ]) {
      const response = await fetch(daemon.baseUrl + path, { headers: headers as Record<string, string> });
      expect([path, response.status]).toEqual([path, 401]);
      expect(await response.json()).toMatchObject({ code: 'unauthenticated' });
    }
  });

  it('never makes the server fail', async () => {
    const routes: [string, string, string[]][] = [
      ['POST', '/v1/sessions/session', ['api_key', 'vm_lifetime_seconds', 'memory_mb', 'env', 'metadata']],
      ['POST', '/v2/sandboxes', ['memory_mb', 'vcpu_count', 'ttl_seconds', 'metadata', 'env']],
      ['POST', '/execute', ['session_id', 'command', 'language', 'timeout', 'code']],
      ['POST', '/kill', ['session_id']],
      ['POST', '/download', ['session_id', 'filename']],
      ['POST', `/v1/egress/session/${id}`, ['allow_http', 'allowed_domains']],
      ['POST', `/v2/sandboxes/${id}/files/mkdir`, ['path', 'mode', 'within', 'user']],
      ['POST', `/v2/sandboxes/${id}/files/rename`, ['from', 'to']],
      ['PATCH', '/v1/vms/vm_aaaaaaaaaaaaaaaaaaaa', ['metadata']],
    ];
    const call = fc.constantFrom(...routes).chain(([method, path, fields]) =>
      fc.record({
        method: fc.constant(method),
        path: fc.constant(path),
        body: fc.oneof(
          fc.jsonValue(),
          fc.dictionary(
            fc.constantFrom(...fields),
            fc.oneof(fc.jsonValue(), fc.constant(id), fc.string({ unit: 'binary' })),
          ),
        ),
      }),
    );
    await fc.assert(
      fc.asyncProperty(call, async ({ method, path, body }) => {
        const { status } = await api.json(method, path, body);
        expect(status).toBeLessThan(500);
      }),
      { numRuns: 300 },
    );
  });
});

/** @returns a list in a list in …, so many of them */
const nested = (levels: number): unknown => JSON.parse('['.repeat(levels) + ']'.repeat(levels));

/** @returns an environment of so many 64 KiB values */
function large(count: number): Record<string, string> {
  return Object.fromEntries(Array.from({ length: count }, (_, index) => [`V${index}`, 'x'.repeat(60_000)]));
}

import { once } from 'node:events';
import type { ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { InstaVMError } from '@instavm/wire';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Stand, shareId } from './stand.ts';

let stand: Stand;
/** Waits for nothing. */
let hasty: Stand;
let id: string;
const seen: string[] = [];
/** Answers to /wait, which the tests give. */
const held: ServerResponse[] = [];

beforeAll(async () => {
  stand = await Stand.start({ exchangesPerShare: 3 });
  hasty = await Stand.start({ headerTimeoutMs: 1_500, connectTimeoutMs: 1_000, answerTimeoutMs: 2_000 });
  id = await stand.service('guarded', (request, response) => {
    seen.push(request.url ?? '');
    if (request.url === '/wait') held.push(response);
    else request.resume().on('end', () => response.end('ok'));
  });
});
afterAll(async () => {
  await stand.close();
  await hasty.close();
});

const statusOf = (raw: string): number => Number(/^HTTP\/1\.1 (\d+)/.exec(raw)?.[1] ?? 0);
const codeOf = (raw: string): string | undefined => /instavm-preview: (\S+)/i.exec(raw)?.[1];

describe('bytes that two readers could understand differently', () => {
  const cases: readonly (readonly [string, string, string])[] = [
    [
      'a length and chunks',
      'POST',
      'Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n',
    ],
    ['two lengths', 'POST', 'Content-Length: 4\r\nContent-Length: 40\r\n\r\nabcdGET /smuggled HTTP/1.1\r\n\r\n'],
    ['the same length twice', 'POST', 'Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd'],
    ['a list of lengths', 'POST', 'Content-Length: 4, 4\r\n\r\nabcd'],
    ['a signed length', 'POST', 'Content-Length: +4\r\n\r\nabcd'],
    ['two codings', 'POST', 'Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n'],
    ['a coding before chunked', 'POST', 'Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n'],
    ['an unknown coding', 'POST', 'Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n'],
    ['a space before the colon', 'POST', 'Transfer-Encoding : chunked\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n'],
    ['a folded field', 'GET', 'X-A: b\r\n Transfer-Encoding: chunked\r\n\r\n'],
    [
      'a chunk size that is no number',
      'POST',
      'Transfer-Encoding: chunked\r\n\r\nzz\r\nGET /smuggled HTTP/1.1\r\n\r\n',
    ],
    ['a bare line feed', 'GET', 'X-A: b\nX-B: c\r\n\r\n'],
    ['a NUL in a field', 'GET', 'X-A: b\0c\r\n\r\n'],
  ];
  it.each(cases)('are refused: %s', async (_name, method, rest) => {
    const raw = await stand.raw(id, `${method} /x HTTP/1.1\r\nHost: ${stand.authorityOf(id)}\r\n${rest}`);
    expect([statusOf(raw), codeOf(raw)]).toEqual([400, 'malformed_request']);
    expect(raw.match(/HTTP\/1\.1/g)).toHaveLength(1);
    expect(seen).not.toContain('/smuggled');
  });
});

describe('a request that is not for a share', () => {
  const ask = (line: string, host: string): Promise<string> =>
    stand.raw(id, `${line} HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`);

  it('is refused as a forward proxy would take it', async () => {
    const host = stand.authorityOf(id);
    expect(statusOf(await ask('CONNECT example.com:443', host))).toBe(400);
    expect(statusOf(await ask(`CONNECT ${host}`, host))).toBe(400);
    expect(statusOf(await ask('GET http://example.com/', host))).toBe(400);
    expect(statusOf(await ask(`GET https://${host}/`, host))).toBe(400);
    expect(statusOf(await ask('OPTIONS *', host))).toBe(400);
  });

  it('is misdirected when its Host is another than the connection was made for, or under another domain', async () => {
    const other = await stand.service('another', (_request, response) => response.end());
    for (const host of [
      stand.authorityOf(other),
      'localhost',
      'preview.localhost',
      `${id}.example.com`,
      `x.${stand.hostOf(id)}`,
    ]) {
      const raw = await ask('GET /', host);
      expect([host, statusOf(raw), codeOf(raw)]).toEqual([host, 421, 'misdirected_request']);
    }
    for (const host of ['', '127.0.0.1@x', `[::1]:${stand.port}`]) expect(statusOf(await ask('GET /', host))).toBe(400);
    const twice = await stand.raw(
      id,
      `GET / HTTP/1.1\r\nHost: ${stand.hostOf(id)}\r\nHost: ${stand.hostOf(other)}\r\n\r\n`,
    );
    expect(statusOf(twice)).toBe(400);
  });

  it('finds no share under a name that nobody has, and none through a path', async () => {
    const unknown = await stand.ask(shareId('nobody'), '/');
    expect(unknown).toMatchObject({ status: 404, headers: { 'instavm-preview': 'share_not_found' } });
    const odd = await stand.ask('www', '/');
    expect(odd).toMatchObject({ status: 404, headers: { 'instavm-preview': 'share_not_found' } });
    const another = stand.authorityOf(shareId('another'));
    for (const path of [
      `/../${shareId('another')}/`,
      `/%2e%2e/${shareId('another')}`,
      `//${another}/`,
      `/\\${another}`,
      `/@${another}/`,
      `/?host=${another}`,
      '/..%2f..%5c',
      '/./.instavm/../x',
    ]) {
      expect(await stand.ask(id, path)).toMatchObject({ status: 200, body: 'ok' });
      expect(seen.at(-1)).toBe(path);
    }
    expect(await stand.ask(id, '/.instavm/else')).toMatchObject({
      status: 404,
      headers: { 'instavm-preview': 'route_not_found' },
    });
  });
});

it.each(['CONNECT a:1 HTTP/1.1', 'GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket'])(
  'a connection on which %j does not wait for the answer before it ends, and nothing else',
  async (line) => {
    const host = `Host: ${stand.authorityOf(id)}`;
    const pipelined = `GET / HTTP/1.1\r\n${host}\r\n\r\n${line}\r\n${host}\r\n\r\n`;
    expect(await stand.raw(id, pipelined)).toBe('');
    expect((await stand.ask(id, '/')).status).toBe(200);
  },
);

describe('a request that takes too much', () => {
  it('of header or URL is refused', async () => {
    const large = await stand.ask(id, '/', { headers: { cookie: 'x'.repeat(40_000) } });
    expect(large).toMatchObject({ status: 431, headers: { 'instavm-preview': 'headers_too_large' } });
    const long = await stand.ask(id, `/${'x'.repeat(20_000)}`);
    expect(long).toMatchObject({ status: 414, headers: { 'instavm-preview': 'url_too_long' } });
    const longest = await stand.raw(id, `GET /${'x'.repeat(50_000)} HTTP/1.1\r\nHost: ${stand.hostOf(id)}\r\n\r\n`);
    expect(statusOf(longest)).toBe(414);
  });

  it('of time for its header is ended', async () => {
    const slow = `GET / HTTP/1.1\r\nHost: ${hasty.hostOf(id)}\r\nX-Slow: `;
    expect(statusOf(await hasty.raw(id, slow))).toBe(408);
    const drip = await hasty.rawSocket(id);
    drip.on('error', () => {}).resume();
    drip.write(slow);
    const dripping = setInterval(() => drip.write('x'), 100);
    await once(drip, 'close');
    clearInterval(dripping);
    const socket = connect(hasty.port, '127.0.0.1'); // never begins TLS
    socket.on('error', () => {});
    await once(socket, 'close');
  });

  it('of the share is told to wait; others are not', async () => {
    const waiting = Array.from({ length: 3 }, () => stand.ask(id, '/wait'));
    await expect.poll(() => held).toHaveLength(3);
    const refused = await stand.ask(id, '/');
    expect(refused).toMatchObject({ status: 429, headers: { 'instavm-preview': 'rate_limited', 'retry-after': '3' } });
    const other = await stand.service('calm', (_request, response) => response.end('fine'));
    expect(await stand.ask(other, '/')).toMatchObject({ status: 200 });
    for (const response of held.splice(0)) response.end('at last');
    for (const answer of await Promise.all(waiting)) expect(answer).toMatchObject({ status: 200, body: 'at last' });
    expect(await stand.ask(id, '/')).toMatchObject({ status: 200 });
  });

  it('of time for its answer gets a page', async () => {
    const silent = await hasty.service('silent', () => {});
    expect(await hasty.ask(silent, '/')).toMatchObject({
      status: 504,
      headers: { 'instavm-preview': 'service_timeout' },
    });
  });
});

describe('a sandbox that cannot be reached', () => {
  it('is told apart by status and code, and what only its owner should know is not said', async () => {
    const error = (code: ConstructorParameters<typeof InstaVMError>[0]) => () =>
      Promise.reject(new InstaVMError(code, 'Said so.'));
    const cases = [
      ['sandbox_suspended', 503],
      ['invalid_state', 503],
      ['capacity_unavailable', 503],
      ['lease_expired', 410],
      ['sandbox_not_found', 410],
      ['guest_lost', 502],
      ['boot_failed', 500],
    ] as const;
    for (const [code, status] of cases) {
      const answer = await stand.ask(stand.failing('fails', error(code)), '/');
      expect([answer.status, answer.headers['instavm-preview']]).toEqual([status, code]);
      expect(JSON.parse(answer.body)).toMatchObject({ code });
      expect(answer.body).not.toContain('Said so');
    }
  });

  it('is a page that asks again when nothing listens, or when it takes long to wake', async () => {
    const silent = stand.share('silent', 1);
    const page = await stand.ask(silent, '/', { headers: { accept: 'text/html,*/*;q=0.8' } });
    expect(page).toMatchObject({
      status: 502,
      headers: { 'instavm-preview': 'port_not_listening', 'retry-after': '2' },
    });
    expect(page.body).toContain('<meta http-equiv="refresh" content="2">');
    expect(page.body).toContain('port 1 of the sandbox');

    const asleep = hasty.failing(
      'asleep',
      (signal) => new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    );
    expect(await hasty.ask(asleep, '/')).toMatchObject({
      status: 503,
      headers: { 'instavm-preview': 'guest_unresponsive' },
    });
  });

  it('hides what the server did wrong, and logs it', async () => {
    const broken = stand.failing('broken', () => Promise.reject(new Error('secret path /root/x')));
    const answer = await stand.ask(broken, '/');
    expect(answer).toMatchObject({ status: 500, headers: { 'instavm-preview': 'internal' } });
    expect(answer.body).not.toContain('secret');
    expect(stand.warnings.join()).toContain('could not be connected');
  });
});

it('speaks TLS 1.2 at least', async () => {
  const socket = tlsConnect({
    host: '127.0.0.1',
    port: stand.port,
    ca: stand.ca,
    servername: stand.hostOf(id),
    maxVersion: 'TLSv1.1',
    minVersion: 'TLSv1.1',
    ciphers: 'DEFAULT@SECLEVEL=0',
  });
  const [error] = (await once(socket, 'error')) as [Error];
  expect(error.message).toMatch(/protocol/i);
});

it('ends what is under way to a share that is revoked, and lets go of every connection when it closes', async () => {
  const answers = Promise.allSettled([stand.ask(id, '/wait'), stand.ask(id, '/wait')]);
  await expect.poll(() => held).toHaveLength(2);
  stand.proxy.withdraw(id, 'share');
  expect((await answers).map(({ status }) => status)).toEqual(['rejected', 'rejected']);
  await stand.proxy.close();
  await expect.poll(() => stand.connections.size).toBe(0);
});

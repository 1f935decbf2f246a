import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { connect as connectHttp2 } from 'node:http2';
import { request as httpsRequest } from 'node:https';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import { EMPTY, OTHER_PRIVATE, OWNERS_KEY, PRIVATE, PUBLIC, Rig, shareId } from './rig.ts';

const sockets = new WebSocketServer({ noServer: true });
sockets.on('connection', (socket) => socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary })));

let served = 0;
let finishEvents: () => void = () => {};

/** What a program in a sandbox may be. */
function serve(request: IncomingMessage, response: ServerResponse): void {
  served++;
  switch (request.url) {
    case '/headers':
      response.setHeader('content-type', 'application/json');
      return void response.end(JSON.stringify(request.headers));
    case '/echo':
      response.writeHead(200, {
        'x-length': request.headers['content-length'] ?? request.headers['transfer-encoding'],
      });
      return void request.pipe(response);
    case '/events':
      response.writeHead(200, { 'content-type': 'text/event-stream' });
      response.write('data: first\n\n');
      finishEvents = () => response.end('data: last\n\n');
      return;
    case '/cookies':
      response.setHeader('set-cookie', [
        'own=1; Path=/',
        'wide=1; Domain=preview.localhost; Path=/',
        '__Host-instavm_preview=forged; Path=/; Secure',
      ]);
      response.setHeader('instavm-preview', 'forged');
      response.setHeader('keep-alive', 'timeout=1');
      return void response.end('cookies');
    case '/torn':
      response.writeHead(200, { 'content-length': '1000' });
      response.write('only this');
      return void setTimeout(() => response.destroy(), 20);
    case '/trailers':
      response.writeHead(200, { trailer: 'x-sum' });
      response.write('body');
      response.addTrailers({ 'x-sum': '4' });
      return void response.end();
    default:
      response.end(`${request.method} ${request.url}`);
  }
}

const service = createServer(serve);
service.on('upgrade', (request, socket, head) =>
  sockets.handleUpgrade(request, socket, head, (accepted) => sockets.emit('connection', accepted)),
);

let rig: Rig;
beforeAll(async () => {
  rig = await Rig.open(service);
});
afterAll(async () => {
  await rig.close();
  service.closeAllConnections();
  service.close();
});

describe('a public share', () => {
  it('is served over HTTP/1.1 and HTTP/2 with the certificate of the local authority', async () => {
    expect(await rig.ask(PUBLIC, '/a?b=c')).toMatchObject({ status: 200, body: 'GET /a?b=c' });
    const session = connectHttp2(rig.proxy.urlOf(PUBLIC), {
      ca: rig.ca,
      host: '127.0.0.1',
      lookup: undefined,
    } as never);
    session.on('error', () => {});
    const stream = session.request({ ':path': '/two' });
    let text = '';
    stream.on('data', (chunk) => {
      text += chunk;
    });
    await once(stream, 'end');
    expect(text).toBe('GET /two');
    session.close();
  });

  it('tells its service who visits, and believes nobody who says so', async () => {
    const lies = { 'x-forwarded-for': '6.6.6.6', forwarded: 'for=6.6.6.6', 'x-real-ip': '6.6.6.6' };
    const { body } = await rig.ask(PUBLIC, '/headers', {
      headers: { ...lies, connection: 'keep-alive, x-secret', 'x-secret': '1' },
    });
    const seen = JSON.parse(body) as Record<string, string>;
    expect(body).not.toContain('6.6.6.6');
    expect(seen).toMatchObject({ 'x-forwarded-proto': 'https', 'x-forwarded-for': '127.0.0.1' });
    expect(seen.host).toBe(new URL(rig.proxy.urlOf(PUBLIC)).host);
    expect(seen).not.toHaveProperty('x-secret');
  });

  it('carries bodies as they come, with a length or chunked', async () => {
    const known = await rig.ask(PUBLIC, '/echo', { method: 'POST', body: 'hello', headers: { 'content-length': '5' } });
    expect(known).toMatchObject({ body: 'hello', headers: { 'x-length': '5' } });
    const chunked = await rig.ask(PUBLIC, '/echo', {
      method: 'POST',
      body: 'hello',
      headers: { 'transfer-encoding': 'chunked' },
    });
    expect(chunked).toMatchObject({ body: 'hello', headers: { 'x-length': 'chunked' } });
  });

  it('sends events when they happen, not when they end', async () => {
    const asked = httpsRequest(new URL('/events', rig.proxy.urlOf(PUBLIC)), { agent: rig.agent });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    const [first] = (await once(answer, 'data')) as [Buffer];
    expect(first.toString()).toBe('data: first\n\n');
    finishEvents();
    const [last] = (await once(answer, 'data')) as [Buffer];
    expect(last.toString()).toBe('data: last\n\n');
  });

  it('carries WebSockets with frames of a megabyte', async () => {
    const url = `${rig.proxy.urlOf(PUBLIC).replace('https', 'wss')}/socket`;
    const socket = new WebSocket(url, { agent: rig.agent });
    await once(socket, 'open');
    const frame = Buffer.alloc(1_048_576, 'frame');
    socket.send(frame);
    const [echo] = (await once(socket, 'message')) as [Buffer];
    expect(Buffer.compare(echo, frame)).toBe(0);
    socket.close();
    await once(socket, 'close');
  });

  it('keeps an answer that breaks off from looking whole', async () => {
    await expect(rig.ask(PUBLIC, '/torn')).rejects.toThrow();
  });

  it('passes trailers, and answers HEAD without a body', async () => {
    const asked = httpsRequest(new URL('/trailers', rig.proxy.urlOf(PUBLIC)), {
      agent: rig.agent,
      headers: { te: 'trailers' },
    });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    answer.resume();
    await once(answer, 'end');
    expect(answer.trailers).toEqual({ 'x-sum': '4' });
    expect(await rig.ask(PUBLIC, '/x', { method: 'HEAD' })).toMatchObject({ status: 200, body: '' });
  });

  it('lets its service set cookies for its own host, and none of ours or of others', async () => {
    const { headers } = await rig.ask(PUBLIC, '/cookies');
    const cookies = [headers['set-cookie'] ?? []].flat();
    expect(cookies).toContain('own=1; Path=/');
    expect(cookies.join()).not.toMatch(/Domain=preview\.localhost|instavm_preview/i);
    expect(headers).not.toHaveProperty('instavm-preview');
  });

  it('answers five hundred requests at once', async () => {
    const answers = await Promise.all(Array.from({ length: 500 }, (_, n) => rig.ask(PUBLIC, `/${n}`)));
    expect(answers.map(({ body }) => body)).toEqual(answers.map((_, n) => `GET /${n}`));
  });

  it('ends what is under way when it is dropped', async () => {
    const asked = httpsRequest(new URL('/events', rig.proxy.urlOf(PUBLIC)), { agent: rig.agent });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    answer.on('error', () => {});
    await once(answer, 'data');
    const closed = new Promise((resolve) => answer.once('close', resolve));
    rig.proxy.drop(PUBLIC);
    await closed;
    expect(answer.complete).toBe(false);
  });
});

describe('an address that leads nowhere', () => {
  it('says that there is no such share', async () => {
    expect(await rig.ask(shareId('z'))).toMatchObject({
      status: 404,
      headers: { 'instavm-preview': 'share_not_found' },
    });
  });

  it('says that nothing listens on the port, to people and to programs', async () => {
    const page = await rig.ask(EMPTY, '/', { headers: { accept: 'text/html' } });
    expect(page).toMatchObject({ status: 502, headers: { 'instavm-preview': 'port_not_listening' } });
    expect(page.body).toContain('3000');
    const { body } = await rig.ask(EMPTY, '/', { headers: { accept: 'application/json' } });
    expect(JSON.parse(body)).toMatchObject({ code: 'port_not_listening' });
  });
});

describe('a private share', () => {
  it('leads strangers to a page that answers, and not to the service', async () => {
    const { status, headers } = await rig.ask(PRIVATE, '/secret');
    expect(status).toBe(302);
    expect(headers.location).toMatch(/\/\.instavm\/private$/);
    const page = await rig.ask(PRIVATE, '/.instavm/private');
    expect(page.status).toBe(200);
    expect(page.body).not.toContain('GET');
  });

  it('is opened by a link, which becomes a cookie that no other share takes and no service sees', async () => {
    const link = new URL(rig.proxy.signedUrlOf(PRIVATE, new Date(Date.now() + 60_000)));
    const entered = await rig.ask(PRIVATE, `/headers${link.search}`);
    expect(entered.status).toBe(302);
    expect(entered.headers.location).toBe(`${rig.proxy.urlOf(PRIVATE)}/headers`);
    const [cookie = ''] = [entered.headers['set-cookie'] ?? []].flat();
    expect(cookie).toMatch(/^__Host-instavm_preview=.*; Path=\/; Secure; HttpOnly; SameSite=Lax$/);
    const sent = { cookie: `own=1; ${cookie.split(';')[0]}` };
    const { status, body } = await rig.ask(PRIVATE, '/headers', { headers: sent });
    expect([status, (JSON.parse(body) as Record<string, string>).cookie]).toEqual([200, 'own=1']);
    expect((await rig.ask(OTHER_PRIVATE, '/headers', { headers: sent })).status).toBe(302);
    // Another share's page, in the same browser.
    const foreign = { ...sent, origin: rig.proxy.urlOf(PUBLIC) };
    expect((await rig.ask(PRIVATE, '/headers', { headers: foreign })).status).toBe(302);
  });

  it('is not opened by a link that has expired, was made for another, or was changed', async () => {
    const expired = new URL(rig.proxy.signedUrlOf(PRIVATE, new Date(Date.now() - 1_000))).search;
    const foreign = new URL(rig.proxy.signedUrlOf(OTHER_PRIVATE, new Date(Date.now() + 60_000))).search;
    const changed = `${new URL(rig.proxy.signedUrlOf(PRIVATE, new Date(Date.now() + 60_000))).search}x`;
    for (const query of [expired, foreign, changed]) {
      const { status, headers } = await rig.ask(PRIVATE, `/headers${query}`);
      expect(status).toBe(302);
      expect(headers.location).toContain('/.instavm/private');
    }
  });

  it('is opened by its owner’s key, which its service does not see', async () => {
    const { status, body } = await rig.ask(PRIVATE, '/headers', { headers: { 'x-api-key': OWNERS_KEY } });
    expect(status).toBe(200);
    expect(body).not.toContain(OWNERS_KEY);
    expect((await rig.ask(PRIVATE, '/headers', { headers: { authorization: 'Bearer instavm_sk_other' } })).status).toBe(
      302,
    );
  });
});

describe('a request that two readers could understand differently', () => {
  const host = (): string => new URL(rig.proxy.urlOf(PUBLIC)).host;
  const refused: readonly [what: string, bytes: () => string, status: RegExp][] = [
    [
      'a length and chunks',
      () => `POST / HTTP/1.1\r\nHost: ${host()}\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n`,
      /^HTTP\/1\.1 400/,
    ],
    [
      'two lengths',
      () => `POST / HTTP/1.1\r\nHost: ${host()}\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde`,
      /^HTTP\/1\.1 400/,
    ],
    [
      'an unknown coding',
      () => `POST / HTTP/1.1\r\nHost: ${host()}\r\nTransfer-Encoding: xchunked\r\n\r\n`,
      /^HTTP\/1\.1 400/,
    ],
    ['two hosts', () => `GET / HTTP/1.1\r\nHost: ${host()}\r\nHost: other\r\n\r\n`, /^HTTP\/1\.1 400/],
    ['no host', () => 'GET / HTTP/1.1\r\n\r\n', /^HTTP\/1\.1 400/],
    ['an absolute target', () => `GET https://other/ HTTP/1.1\r\nHost: ${host()}\r\n\r\n`, /^HTTP\/1\.1 400/],
    ['a space before a colon', () => `GET / HTTP/1.1\r\nHost : ${host()}\r\n\r\n`, /^HTTP\/1\.1 400/],
    ['CONNECT', () => `CONNECT other:443 HTTP/1.1\r\nHost: ${host()}\r\n\r\n`, /^HTTP\/1\.1 4\d\d/],
    [
      'another host than TLS was made for',
      () => `GET / HTTP/1.1\r\nHost: ${PRIVATE}.preview.localhost\r\n\r\n`,
      /^HTTP\/1\.1 421/,
    ],
    ['a host outside of the domain', () => 'GET / HTTP/1.1\r\nHost: example.org\r\n\r\n', /^HTTP\/1\.1 421/],
    [
      'a header without an end',
      () => `GET / HTTP/1.1\r\nHost: ${host()}\r\nX: ${'x'.repeat(40_000)}\r\n\r\n`,
      /^HTTP\/1\.1 431/,
    ],
    [
      'a target without an end',
      () => `GET /${'x'.repeat(20_000)} HTTP/1.1\r\nHost: ${host()}\r\n\r\n`,
      /^HTTP\/1\.1 414/,
    ],
  ];
  for (const [what, bytes, status] of refused)
    it(`is refused: ${what}`, async () => {
      const before = served;
      expect(await rig.say(bytes())).toMatch(status);
      expect(served).toBe(before);
    });

  it('and one that never ends its header is not waited for', async () => {
    const slow = await Rig.open(createServer(serve), { headerTimeoutMs: 300 });
    const socket = await slow.raw();
    socket.on('error', () => {});
    socket.resume();
    const started = performance.now();
    socket.write('GET / HTTP/1.1\r\nHost: ');
    await once(socket, 'close');
    expect(performance.now() - started).toBeLessThan(5_000);
    await slow.close();
  });
});

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer as createTcpServer, type LookupFunction } from 'node:net';
import { duplexPair, type Readable } from 'node:stream';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { Stand, shareId } from './stand.ts';

/** getaddrinfo does not know names under localhost everywhere. */
const toLoopback: LookupFunction = (_host, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]);

let stand: Stand;
let server: WebSocketServer;
let id: string;

beforeAll(async () => {
  stand = await Stand.start();
  server = new WebSocketServer({ host: '127.0.0.1', port: 0, maxPayload: 8 << 20 });
  server.on('connection', (socket, request) => {
    socket.send(JSON.stringify({ url: request.url, headers: request.headers }));
    socket.on('message', (data, isBinary) => {
      if (data.toString() === 'bye') socket.close(4001, 'as asked');
      else socket.send(data, { binary: isBinary });
    });
    socket.on('error', () => {});
  });
  await once(server, 'listening');
  id = stand.share('socket', (server.address() as AddressInfo).port);
});
afterAll(async () => {
  await stand.close();
  server.close();
});

function open(share = id, path = '/', at = stand): WebSocket {
  const options = { ca: at.ca, servername: at.hostOf(share), lookup: toLoopback };
  const socket = new WebSocket(`wss://${at.authorityOf(share)}${path}`, options as WebSocket.ClientOptions);
  socket.on('error', () => {});
  return socket;
}
/** What a stream has said, in whatever pieces. */
function allOf(stream: Readable): () => Buffer {
  const pieces: Buffer[] = [];
  stream.on('data', (piece: Buffer) => pieces.push(piece));
  return () => Buffer.concat(pieces);
}
/** A masked text frame with a key of zeros, and its echo. */
const HI = Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69]);
const HI_BACK = Buffer.from([0x81, 0x02, 0x68, 0x69]);
const messageOf = async (socket: WebSocket): Promise<Buffer> => ((await once(socket, 'message')) as [Buffer])[0];

describe('a WebSocket', () => {
  it('carries frames of a megabyte both ways, and closes with its code', async () => {
    const socket = open(id, '/hot?x=1');
    const hello = JSON.parse((await messageOf(socket)).toString()) as { url: string; headers: Record<string, string> };
    expect(hello).toMatchObject({
      url: '/hot?x=1',
      headers: { host: stand.authorityOf(id), 'x-forwarded-proto': 'https' },
    });
    for (let round = 0; round < 5; round += 1) {
      const frame = randomBytes(1 << 20);
      socket.send(frame);
      expect((await messageOf(socket)).equals(frame)).toBe(true);
    }
    socket.send('bye');
    expect(await once(socket, 'close')).toEqual([4001, Buffer.from('as asked')]);
    await expect.poll(() => stand.connections.size).toBe(0);
  });

  it('stays while something comes now and then, and ends after the idle time', async () => {
    const impatient = await Stand.start({ idleTimeoutMs: 2_000 });
    impatient.share('socket', (server.address() as AddressInfo).port);
    const [busy, idle] = [open(id, '/', impatient), open(id, '/', impatient)];
    await Promise.all([messageOf(busy), messageOf(idle)]);
    let idleEnds: number | undefined;
    const ended = once(idle, 'close').then(([code]) => {
      idleEnds = code;
    });
    // Until another one, which is as old and says nothing, has ended.
    while (idleEnds === undefined) {
      await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 200))]);
      busy.send('tick');
      expect((await messageOf(busy)).toString()).toBe('tick');
    }
    expect(idleEnds).toBe(1006);
    expect((await once(busy, 'close'))[0]).toBe(1006);
    await expect.poll(() => impatient.connections.size).toBe(0);
    await impatient.close();
  });

  it('ends on the other side when either side is gone', async () => {
    const left = open();
    await messageOf(left);
    left.terminate();
    await expect.poll(() => [server.clients.size, stand.connections.size]).toEqual([0, 0]);

    const lost = open();
    await messageOf(lost);
    for (const client of server.clients) client.terminate();
    expect((await once(lost, 'close'))[0]).toBe(1006);
  });

  it('that the service refuses is refused with its answer', async () => {
    const plain = await stand.service('plain', (_request, response) =>
      response.writeHead(426, { 'x-why': 'no' }).end('no sockets'),
    );
    const [, response] = (await once(open(plain), 'unexpected-response')) as [
      unknown,
      import('node:http').IncomingMessage,
    ];
    expect(response).toMatchObject({ statusCode: 426, headers: { 'x-why': 'no' } });
    const nobody = stand.share('nobody', 1);
    const [, page] = (await once(open(nobody), 'unexpected-response')) as [
      unknown,
      import('node:http').IncomingMessage,
    ];
    expect(page).toMatchObject({ statusCode: 502, headers: { 'instavm-preview': 'port_not_listening' } });
    const [, unknown] = (await once(open(shareId('none')), 'unexpected-response')) as [
      unknown,
      import('node:http').IncomingMessage,
    ];
    expect(unknown.statusCode).toBe(404);
  });

  it('whose service is silent gets a page in time', async () => {
    const impatient = await Stand.start({ answerTimeoutMs: 500 });
    const tcp = createTcpServer((socket) => socket.on('error', () => {}).resume());
    const silent = impatient.share('silent', await impatient.listen(tcp));
    const [, page] = (await once(open(silent, '/', impatient), 'unexpected-response')) as [
      unknown,
      import('node:http').IncomingMessage,
    ];
    expect(page).toMatchObject({ statusCode: 504, headers: { 'instavm-preview': 'service_timeout' } });
    await impatient.close();
  });

  it('is counted once for each, and two hundred live side by side', async () => {
    const roomy = await Stand.start();
    roomy.share('socket', (server.address() as AddressInfo).port);
    const sockets = Array.from({ length: 200 }, () => open(id, '/', roomy));
    await Promise.all(sockets.map(messageOf));
    const replies = sockets.map(messageOf);
    for (const [index, socket] of sockets.entries()) socket.send(String(index));
    expect((await Promise.all(replies)).map(String)).toEqual(sockets.map((_, index) => String(index)));
    expect(roomy.connections.size).toBe(200);
    for (const socket of sockets) socket.terminate();
    await expect.poll(() => roomy.connections.size).toBe(0);
    await expect.poll(() => server.clients.size).toBe(0);
    await roomy.close();
  });

  it('comes over HTTP/2 as an extended CONNECT, and is an upgrade for the service', async () => {
    const session = stand.http2(id);
    await once(session, 'remoteSettings');
    const stream = session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':scheme': 'https',
      ':path': '/over-h2',
      ':authority': stand.authorityOf(id),
      'sec-websocket-version': '13',
    });
    const [headers] = (await once(stream, 'response')) as [Record<string, unknown>];
    expect(headers[':status']).toBe(200);
    expect(headers).not.toHaveProperty('sec-websocket-accept');
    const heard = allOf(stream);
    await expect.poll(() => heard().toString('latin1')).toMatch(/"url":"\/over-h2".*}}$/s);
    stream.write(HI);
    await expect.poll(() => heard().subarray(-HI_BACK.length)).toEqual(HI_BACK);
    stream.close();
    await expect.poll(() => server.clients.size).toBe(0);
    session.destroy();
  });
});

it('and events are quiet for long, and live on when connections without either have ended', async () => {
  const other = await Stand.start({ connectionIdleMs: 1_500, headerTimeoutMs: 1_500, answerTimeoutMs: 1_500 });
  try {
    const echo = other.share('echo', (server.address() as AddressInfo).port);
    let tell = (): void => {};
    const events = await other.service('events', (_request, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' }).flushHeaders();
      tell = () => response.write('data: at last\n\n');
    });

    const socket = open(echo, '/', other);
    await messageOf(socket);
    const session = other.http2(echo);
    await once(session, 'remoteSettings');
    const stream = session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':scheme': 'https',
      ':path': '/',
      ':authority': other.authorityOf(echo),
      'sec-websocket-version': '13',
    });
    const heard = allOf(stream);
    await expect.poll(() => heard().toString('latin1')).toMatch(/}}$/);
    const answer = await other.open(events, '/');

    // As long as younger connections without either last.
    const idle = await other.rawSocket(events);
    idle.on('error', () => {}).resume();
    idle.write(`HEAD /.instavm/private HTTP/1.1\r\nHost: ${other.authorityOf(events)}\r\n\r\n`);
    await Promise.all([once(idle, 'close'), once(other.http2(events), 'close')]);
    socket.send('still here');
    expect((await messageOf(socket)).toString()).toBe('still here');
    stream.write(HI);
    await expect.poll(() => heard().subarray(-HI_BACK.length)).toEqual(HI_BACK);
    tell();
    expect(String((await once(answer, 'data'))[0])).toBe('data: at last\n\n');
    socket.terminate();
    session.destroy();
    answer.destroy();
  } finally {
    await other.close();
  }
});

it('other upgrades, and upgrades with a body, are ordinary requests without the upgrade', async () => {
  const plain = await stand.service('ordinary', (request, response) => {
    request.resume();
    response.end(JSON.stringify(request.headers));
  });
  for (const headers of [
    { connection: 'Upgrade, HTTP2-Settings', upgrade: 'h2c', 'http2-settings': 'AAMAAABkAAQAAP__' },
    { connection: 'Upgrade', upgrade: 'websocket', 'content-length': '2' },
  ] as Record<string, string>[]) {
    const answer = await stand.ask(plain, '/', { headers, ...(headers['content-length'] ? { body: 'hi' } : {}) });
    expect(answer.status).toBe(200);
    expect(JSON.parse(answer.body)).not.toHaveProperty('upgrade');
    expect(JSON.parse(answer.body)).not.toHaveProperty('http2-settings');
  }
});

it('a connection that is a plain stream serves requests, kept ones too, and WebSockets', async () => {
  const { port } = server.address() as AddressInfo;
  const web = await stand.listen(
    (await import('node:http')).createServer((request, response) => response.end(request.url)),
  );
  let opened = 0;
  const tunnelTo = (to: number) => async () => {
    opened += 1;
    const [near, far] = duplexPair();
    const socket = connect(to, '127.0.0.1');
    far.pipe(socket).pipe(far);
    near.once('close', () => socket.destroy());
    socket.on('error', () => near.destroy());
    return near;
  };
  const http = stand.failing('tunnel', tunnelTo(web));
  for (const path of ['/a', '/b', '/c']) expect(await stand.ask(http, path)).toMatchObject({ status: 200, body: path });
  expect(opened).toBe(1);
  const socket = open(stand.failing('tunnelws', tunnelTo(port)));
  await messageOf(socket);
  socket.send('through');
  expect((await messageOf(socket)).toString()).toBe('through');
  socket.terminate();
});

/** Connections that are over for the listener, of visitors who do not hang up. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { connect, type ServerHttp2Stream } from 'node:http2';
import { connect as connectTcp, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Stand } from './stand.ts';

const IDLE_MS = 1_000;

let stand: Stand;
let quiet: string;
const open: Socket[] = [];
beforeAll(async () => {
  stand = await Stand.start({ connectionIdleMs: IDLE_MS, headerTimeoutMs: IDLE_MS, idleTimeoutMs: 2_000 });
  quiet = await stand.service('quiet', (_request, response) => void response.write('data: first\n\n'));
});
afterAll(async () => {
  for (const socket of open) socket.destroy();
  await stand.close();
});

/** A visitor who reads to the end and leaves the own side open. */
async function stubborn(ALPNProtocols: string[] = []): Promise<TLSSocket> {
  const socket = connectTcp({ host: '127.0.0.1', port: stand.port, allowHalfOpen: true });
  open.push(socket.on('error', () => {}));
  const servername = stand.hostOf(quiet);
  const options: ConnectionOptions & { allowHalfOpen: boolean } = {
    socket,
    servername,
    ALPNProtocols,
    allowHalfOpen: true,
  };
  const visitor = tlsConnect({ ...options, ca: stand.ca });
  visitor.on('error', () => {}).resume();
  await once(visitor, 'secureConnect');
  return visitor;
}

const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0';

it('are let go of, whatever ended them', async () => {
  const host = `Host: ${stand.authorityOf(quiet)}`;
  const upgrade = `GET /.instavm/none HTTP/1.1\r\n${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
  const said = [upgrade, `CONNECT a:1 HTTP/1.1\r\n${host}\r\n\r\n`, `GET / HTTP/1.1\r\n${host}\r\nX-Slow:`];
  const visitors = await Promise.all([...said.map(() => stubborn()), stubborn(['h2'])]);
  visitors.forEach((visitor, index) => void visitor.write(said[index] ?? PREFACE, 'latin1'));
  await expect.poll(() => stand.proxy.connections).toBe(0);
});

it('over HTTP/2 end when idle, though they were quiet for as long with a request under way', async () => {
  const session = stand.http2(quiet);
  const stream = session.request({ ':path': '/' }).on('error', () => {});
  await once(stream, 'data');
  await sleep(1.5 * IDLE_MS);
  expect(session.closed).toBe(false);
  const closed = once(session, 'close');
  stream.destroy();
  await closed;
});

it('over HTTP/2 end when idle, though pages of ours wait for a visitor who does not take them', async () => {
  const visitor = await stubborn(['h2']);
  const session = connect('https://nobody', { createConnection: () => visitor, settings: { initialWindowSize: 0 } });
  session.on('error', () => {});
  const stream = session.request({ ':path': '/.instavm/none', ':authority': stand.authorityOf(quiet) });
  stream.on('error', () => {});
  const [answer] = (await once(stream, 'response')) as [Record<string, unknown>];
  expect(answer[':status']).toBe(404);
  await expect.poll(() => stand.proxy.connections).toBe(0);
});

it('over HTTP/2 end though their session is gone and has left them open, as Node does when a last write hangs', async () => {
  const gone = ({ stream }: { stream?: ServerHttp2Stream }): void => {
    stream?.session?.setTimeout(0);
    Object.defineProperty(stream?.session, 'destroyed', { value: true });
  };
  const created = (message: unknown): void => gone(message as Parameters<typeof gone>[0]);
  subscribe('http2.server.stream.created', created);
  const visitor = await stubborn(['h2']);
  const session = connect('https://nobody', { createConnection: () => visitor });
  session
    .on('error', () => {})
    .request({ ':path': '/' })
    .on('error', () => {});
  await expect.poll(() => stand.proxy.connections).toBe(0);
  unsubscribe('http2.server.stream.created', created);
});

it('of WebSockets whose service has ended last no longer than silence may', async () => {
  const accept = 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nlast words';
  const port = await stand.listen(createServer((socket) => void socket.once('data', () => socket.end(accept))));
  const id = stand.share('brief', port);
  const session = stand.http2(id);
  await once(session, 'remoteSettings');
  const headers = { ':method': 'CONNECT', ':protocol': 'websocket', ':scheme': 'https', ':path': '/' };
  const stream = session.request({ ...headers, ':authority': stand.authorityOf(id), 'sec-websocket-version': '13' });
  stream.on('error', () => {});
  const heard: Buffer[] = [];
  stream.on('data', (chunk: Buffer) => heard.push(chunk));
  await once(stream, 'end');
  expect(Buffer.concat(heard).toString()).toBe('last words');
  await once(stream, 'close');
  session.destroy();
});

/** A port of a sandbox as an address: real microVMs, real programs in them, visitors that trust the local certificate authority. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';

let daemon: TestDaemon;
let client: InstaVM;
let sandbox: Sandbox;
let caPath: string;
let agent: Agent;

/** Node of the guest: a page, events, an echo of what was sent, and a WebSocket without any library. */
const SERVICE = `
const { createServer } = require('node:http');
const { createHash } = require('node:crypto');
const server = createServer((request, response) => {
  if (request.url === '/echo') return request.pipe(response);
  if (request.url === '/events') { response.writeHead(200, { 'content-type': 'text/event-stream' }); response.write('data: first\\n\\n'); return; }
  response.end('service ' + request.url);
});
server.on('upgrade', (request, socket) => {
  const key = createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + key + '\\r\\n\\r\\n');
  socket.write(Buffer.concat([Buffer.from([0x81, 5]), Buffer.from('hello')]));
  socket.on('data', () => socket.end());
});
server.listen(3000, '127.0.0.1');
`;

beforeAll(async () => {
  daemon = await startTestDaemon({ vmm: 'qemu' });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  sandbox = await client.sandboxes.create({ ttlSeconds: 1800 });
  caPath = join(daemon.dataDirectory, 'preview', 'preview.localhost.ca.pem');
  const lookup = (_: string, options: { all?: boolean }, answer: (...args: unknown[]) => void): void =>
    options.all ? answer(null, [{ address: '127.0.0.1', family: 4 }]) : answer(null, '127.0.0.1', 4);
  agent = new Agent({ ca: await readFile(caPath), lookup: lookup as never });
  await sandbox.files.write('/root/service.js', SERVICE);
  await sandbox.run(
    'setsid node /root/service.js >/root/service.log 2>&1 & until curl -sf -o /dev/null http://127.0.0.1:3000/; do sleep 0.1; done',
  );
});
afterAll(async () => {
  agent?.destroy();
  client?.close();
  await daemon?.stop();
});

type Answer = {
  readonly status: number;
  readonly code: unknown;
  readonly location: string | undefined;
  readonly body: Buffer;
};

async function visit(url: string, headers: Record<string, string> = {}, body?: Buffer): Promise<Answer> {
  const asked = request(url, { agent, headers, method: body === undefined ? 'GET' : 'POST' });
  asked.end(body);
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  const parts: Buffer[] = [];
  for await (const part of answer) parts.push(part as Buffer);
  const { location, 'instavm-preview': code } = answer.headers;
  return { status: answer.statusCode ?? 0, code, location, body: Buffer.concat(parts) };
}
const text = async (url: string, headers: Record<string, string> = {}): Promise<string> =>
  (await visit(url, headers)).body.toString();

describe('a share', () => {
  it('is the same address each time, and shows what the program answers', async () => {
    const share = await sandbox.shares.create({ port: 3000, isPublic: true });
    expect((await sandbox.shares.create({ port: 3000 })).url).toBe(share.url);
    expect(share.url).toMatch(/^https:\/\/shr[a-z2-7]{20}\.preview\.localhost:\d+$/);
    expect(await text(`${share.url}/page?q=1`)).toBe('service /page?q=1');
  });

  it('is trusted by an ordinary client that was given the authority', async () => {
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    const { host, port } = new URL(url);
    const resolve = `${host.split(':')[0]}:${port}:127.0.0.1`;
    const argv = ['-sS', '--cacert', caPath, '--resolve', resolve, `${url}/curl`];
    const { stdout } = await promisify(execFile)('curl', argv);
    expect(stdout).toBe('service /curl');
  });

  it('carries megabytes both ways unchanged', async () => {
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    const bytes = Buffer.alloc(8_000_000, 'instavm!');
    const { body } = await visit(`${url}/echo`, {}, bytes);
    expect(createHash('sha256').update(body).digest('hex')).toBe(createHash('sha256').update(bytes).digest('hex'));
  });

  it('sends events as they happen, and carries WebSockets', async () => {
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    const asked = request(`${url}/events`, { agent });
    asked.end();
    const [answer] = (await once(asked, 'response')) as [IncomingMessage];
    expect(String((await once(answer, 'data'))[0])).toBe('data: first\n\n');
    answer.destroy();
    const socket = new WebSocket(url.replace('https', 'wss'), { agent });
    expect(String((await once(socket, 'message'))[0])).toBe('hello');
    socket.close();
    await once(socket, 'close');
  });

  it('that is private is opened by its owner and by a link, and shows strangers a page', async () => {
    const share = await sandbox.shares.create({ port: 3000, isPublic: false });
    const { status, location } = await visit(`${share.url}/`);
    expect(status).toBe(302);
    expect((await visit(location ?? '')).status).toBe(200);
    expect(await text(`${share.url}/own`, { 'x-api-key': daemon.apiKey })).toBe('service /own');
    expect((await visit(`${share.url}/own`, { 'x-api-key': 'instavm_sk_wrong' })).status).toBe(302);
    const link = await sandbox.shares.link(share.id);
    const token = new URL(link.url).searchParams.get('instavm_token') ?? '';
    expect(await text(`${share.url}/lent`, { 'x-instavm-token': token })).toBe('service /lent');
    await sandbox.shares.revokeLink(share.id, link.id);
    expect((await visit(`${share.url}/lent`, { 'x-instavm-token': token })).status).toBe(302);
  });

  it('says when nothing listens, and works as soon as something does', async () => {
    const { url } = await sandbox.shares.create({ port: 4000, isPublic: true });
    expect(await visit(url)).toMatchObject({ status: 502, code: 'port_not_listening' });
    await sandbox.run(
      'cd /root && (setsid python3 -m http.server 4000 >/dev/null 2>&1 &) ; until curl -sf -o /dev/null http://127.0.0.1:4000/; do sleep 0.1; done',
    );
    expect(await text(`${url}/service.js`, { range: 'bytes=0-5' })).toBe(SERVICE);
  });

  it('wakes its sandbox, whose program goes on', async () => {
    const { url } = await sandbox.shares.create({ port: 3000, isPublic: true });
    await sandbox.suspend();
    expect(await text(`${url}/awake`)).toBe('service /awake');
    expect((await sandbox.info()).state).toBe('running');
  });

  it('that is revoked is nowhere any more, and so is that of a sandbox that has ended', async () => {
    const short = await client.sandboxes.create();
    const [revoked, other] = [
      await short.shares.create({ port: 80, isPublic: true }),
      await short.shares.create({ port: 81, isPublic: true }),
    ];
    await short.shares.revoke(revoked.id);
    expect(await visit(revoked.url)).toMatchObject({ status: 404, code: 'share_not_found' });
    await short.delete();
    expect((await visit(other.url)).status).toBe(404);
  });
});

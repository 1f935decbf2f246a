/** Connecting: straight, to what does not answer, and through the host's own proxy. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, type Socket } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import { dial } from '../src/gateway/dial.ts';
import { bytesOf, endOf, resetStream } from './support/guest.ts';
import { echo, listen, PUBLIC, policyOf, startRig, until } from './support/rig.ts';

/** An address that takes no connection and refuses none: the queue of a server that never accepts is full. */
async function blackHole(host: string): Promise<number> {
  const program = `
    const server = require('node:net').createServer();
    server.listen({ host: '${host}', port: 0, backlog: 1 }, () => {
      require('node:fs').writeSync(1, String(server.address().port));
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
    });`;
  const child: ChildProcess = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  const [text] = (await once(child.stdout as NonNullable<typeof child.stdout>, 'data')) as [Buffer];
  const port = Number(text);
  const fillers = [1, 2].map(() => connect(port, host).on('error', () => {}));
  await Promise.all(fillers.map((filler) => once(filler, 'connect')));
  onTestFinished(async () => {
    for (const filler of fillers) filler.destroy();
    child.kill('SIGKILL');
    await once(child, 'exit');
  });
  return port;
}

/** Whether somebody waits for an answer of it: `SYN_SENT` in what the kernel says of its connections (proc(5)). */
function isDialled(host: string, port: number): boolean {
  const hex = (number: number, digits: number): string => number.toString(16).toUpperCase().padStart(digits, '0');
  const address = host
    .split('.')
    .reverse()
    .map((part) => hex(Number(part), 2))
    .join('');
  return readFileSync('/proc/net/tcp', 'utf8').includes(` ${address}:${hex(port, 4)} 02 `);
}

describe('dialling', () => {
  it('says that the destination did not answer in time when the deadline comes first', async () => {
    const port = await blackHole('127.0.1.7');
    await expect(dial(['127.0.1.7'], port, AbortSignal.timeout(200))).rejects.toMatchObject({
      failure: 'connect_timeout',
    });
  });

  it('goes on to the next address when one does not answer', async () => {
    const port = await blackHole('127.0.1.7');
    await listen(echo, '127.0.1.8', port);
    const { socket, address } = await dial(['127.0.1.7', '127.0.1.8'], port, AbortSignal.timeout(60_000));
    socket.destroy();
    expect(address).toBe('127.0.1.8');
  });

  it('is given up when the guest gives up, and when the link is closed', async () => {
    const port = await blackHole('127.0.1.7');
    const { guest, link, ends, records } = await startRig({ policy: { allowedCidrs: ['127.0.1.0/24'] } });
    const stream = await guest.connect(`127.0.1.7:${port}`);
    await until(() => isDialled('127.0.1.7', port));
    resetStream(stream);
    await until(() => ends().length === 1);
    expect(ends()).toMatchObject([
      { outcome: 'failed', reason: expect.stringContaining('given up'), address: '127.0.1.7' },
    ]);

    await until(() => !isDialled('127.0.1.7', port));
    const other = await guest.connect(`127.0.1.7:${port}`);
    await until(() => isDialled('127.0.1.7', port));
    link.close();
    await until(() => other.closed && ends().length === 2);
    expect(records.every(({ outcome }) => outcome === 'failed')).toBe(true);
  });
});

type Behave = (authority: string, client: Socket, credentials: string | undefined) => void;

/** A proxy as hosts have them, or one that fails as they do. */
async function startProxy(behave: Behave) {
  const asked: string[] = [];
  const proxy = createServer((_request, response) => void response.writeHead(405).end());
  proxy.on('connect', ({ url, headers }, client: Socket) => {
    asked.push(url ?? '');
    client.on('error', () => {});
    behave(url ?? '', client, headers['proxy-authorization']);
  });
  const clients = new Set<Socket>();
  proxy.on('connection', (client: Socket) => {
    clients.add(client);
    client.once('close', () => clients.delete(client));
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  onTestFinished(() => {
    for (const client of clients) client.destroy();
    proxy.close();
  });
  const { port } = proxy.address() as { port: number };
  return { asked, clients, url: new URL(`http://user:p%40ss@127.0.0.1:${port}`) };
}

const forward: Behave = (authority, client) => {
  const [host, port] = authority.split(':');
  const server = connect({ host: host ?? '', port: Number(port), allowHalfOpen: true }, () => {
    client.allowHalfOpen = true;
    client.write('HTTP/1.1 200 Connection established\r\n\r\n');
    client.pipe(server).pipe(client);
  });
  server.on('error', () => client.end('HTTP/1.1 503 Unavailable\r\n\r\n'));
};

describe("the host's proxy", () => {
  const policy = { allowedDomains: ['*.test'], allowedCidrs: ['127.0.1.0/24'] };

  it('is asked for the checked address, with its credentials, and carries both directions and their ends', async () => {
    const credentials: (string | undefined)[] = [];
    const proxy = await startProxy((authority, client, given) => {
      credentials.push(given);
      forward(authority, client, given);
    });
    const { port } = await listen((socket) => {
      void bytesOf(socket).then((bytes) => socket.end(Buffer.concat([bytes, Buffer.alloc(1_000_000, 'x')])));
    });
    const { guest, dns, ends } = await startRig({ proxy: proxy.url, policy });
    dns.host('a.test', PUBLIC);
    const { status, stream } = await guest.ask(`a.test:${port}`);
    expect(status).toBe(200);
    stream.end('hello');
    expect((await bytesOf(stream)).length).toBe(1_000_005);
    expect(proxy.asked).toEqual([`${PUBLIC}:${port}`]);
    expect(credentials).toEqual([`Basic ${Buffer.from('user:p@ss').toString('base64')}`]);
    await until(() => ends().length === 1);
    expect(ends()).toMatchObject([{ outcome: 'closed', bytesSent: 5, bytesReceived: 1_000_005, address: PUBLIC }]);
    await until(() => proxy.clients.size === 0);
  });

  it('that sends bytes right behind its answer loses none of them', async () => {
    const proxy = await startProxy((_authority, client) => void client.write('HTTP/1.1 200 OK\r\n\r\nSSH-2.0-x\r\n'));
    const { guest } = await startRig({ proxy: proxy.url, policy });
    const { stream } = await guest.ask(`${PUBLIC}:22`);
    const [banner] = (await once(stream, 'data')) as [Buffer];
    expect(String(banner)).toBe('SSH-2.0-x\r\n');
  });

  it('that connects to the second address is taken at its word, and a policy that forbids this one cuts it', async () => {
    const proxy = await startProxy((authority, client, given) => {
      if (authority.startsWith('127.0.1.1:')) client.end('HTTP/1.1 503 Unavailable\r\n\r\n');
      else forward(authority, client, given);
    });
    const { port } = await listen(echo, '127.0.1.2');
    const { guest, dns, link, records } = await startRig({ proxy: proxy.url, policy });
    dns.host('a.test', PUBLIC, '127.0.1.2');
    const { stream } = await guest.ask(`a.test:${port}`);
    expect(records).toMatchObject([{ address: '127.0.1.2' }]);
    link.setPolicy(policyOf({ allowedCidrs: ['127.0.1.1/32'] }));
    stream.resume();
    expect(await endOf(stream)).toBe('reset');
  });

  it.each([
    ['403', 'HTTP/1.1 403 Forbidden\r\n\r\n', 502, 'proxy_failed'],
    ['407', 'HTTP/1.1 407 Authenticate\r\nProxy-Authenticate: Basic\r\n\r\n', 502, 'proxy_failed'],
    ['503', 'HTTP/1.1 503 Unavailable\r\n\r\n', 502, 'unreachable'],
    ['504', 'HTTP/1.1 504 Timeout\r\n\r\n', 504, 'connect_timeout'],
    ['garbage', '\u0000\u0001garbage\r\n\r\n', 502, 'proxy_failed'],
    ['endless headers', `HTTP/1.1 200 OK\r\nx: ${'y'.repeat(100_000)}\r\n\r\n`, 502, 'proxy_failed'],
    ['nothing', '', 502, 'proxy_failed'],
  ])('that answers %s is told as such, and keeps no connection', async (_what, answer, status, reason) => {
    const proxy = await startProxy((_authority, client) => void client.end(answer));
    const { guest, ends, warnings } = await startRig({ proxy: proxy.url, policy });
    expect(await guest.ask(`${PUBLIC}:9`)).toMatchObject({ status, reason });
    expect(ends()).toMatchObject([{ outcome: 'failed', allowed: true }]);
    await until(() => proxy.clients.size === 0);
    expect(warnings).toEqual([]);
  });

  it('that resets, or is not there, is not told as a refusal by the destination', async () => {
    const proxy = await startProxy((_authority, client) => void client.resetAndDestroy());
    const resetting = await startRig({ proxy: proxy.url, policy });
    expect(await resetting.guest.ask(`${PUBLIC}:9`)).toMatchObject({ status: 502, reason: 'proxy_failed' });
    const absent = await startRig({ proxy: new URL('http://127.0.0.1:1'), policy });
    expect(await absent.guest.ask(`${PUBLIC}:9`)).toMatchObject({ status: 502, reason: 'proxy_failed' });
  });

  it('is not asked for what the policy denies', async () => {
    const proxy = await startProxy(forward);
    const { guest, dns } = await startRig({ proxy: proxy.url, policy });
    dns.host('inside.test', '127.0.0.1');
    expect((await guest.ask('inside.test:443')).status).toBe(403);
    expect((await guest.ask('127.0.0.1:443')).status).toBe(403);
    expect(proxy.asked).toEqual([]);
  });
});

/**
 * Previews: a small request, a large download, the memory of open WebSockets, and what bulk downloads do to somebody who types. The floor of the request
 * is the same request asked by a program in the guest, plus one over TLS on this host's loopback; that of the download is the bare port's rate; that of
 * the memory is as many connections to a listener of Node's own.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import type { IncomingMessage } from 'node:http';
import { Agent, createServer, request } from 'node:https';
import type { AddressInfo, LookupFunction } from 'node:net';
import { join } from 'node:path';
import { createLocalCa } from '@instavm/preview';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { WebSocket } from 'ws';
import { startBareListener } from './bare-listener.ts';
import type { Floor } from './floor.ts';
import { attach, nextBinary, timedEchoes } from './pty.ts';
import { median, type Row, rssMib, timed } from './report.ts';

const REQUESTS = 200;
const ROUNDS = 3;
const BULK_BYTES = 100 * 1024 * 1024;
const OPEN_WEBSOCKETS = 1_000;
/** At the same time as they are opened: the guest's program accepts one after another. */
const OPENED_AT_ONCE = 20;
const DOWNLOADS = [1, 4];

/** Listens on the port that it is given: a small page, `BULK_BYTES`, bytes without end, and WebSockets that nobody says anything on. */
const SERVICE = `
const { createServer } = require('node:http');
const { createHash } = require('node:crypto');
const chunk = Buffer.alloc(256 * 1024);
const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
  let left = request.url === '/bulk' ? ${BULK_BYTES} : request.url === '/endless' ? Infinity : 0;
  if (left === 0) return response.end('small');
  if (left < Infinity) response.setHeader('content-length', left);
  const more = () => {
    while (left > 0) {
      left -= chunk.length;
      if (!response.write(chunk)) return response.once('drain', more);
    }
    response.end();
  };
  more();
});
server.on('upgrade', (request, socket) => {
  const accept = createHash('sha1').update(request.headers['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11').digest('base64');
  socket.on('error', () => {});
  socket.write('HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\nSec-WebSocket-Accept: ' + accept + '\\r\\n\\r\\n');
});
server.listen(Number(process.argv[2]), '127.0.0.1', 4096);
`;

/** Asks again and again over one connection. @returns median ms */
const CLIENT = `
const { Agent, get } = require('node:http');
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const ask = () => new Promise((resolve) => get({ host: '127.0.0.1', port: 3000, agent }, (answer) => answer.resume().once('end', resolve)));
(async () => {
  const times = [];
  for (let n = 0; n < ${REQUESTS}; n++) {
    const started = performance.now();
    await ask();
    times.push(performance.now() - started);
  }
  times.splice(0, ${REQUESTS / 4});
  console.log(times.sort((a, b) => a - b)[times.length >> 1]);
  agent.destroy();
})();
`;

const toLoopback: LookupFunction = (_host, options, done) =>
  options.all ? done(null, [{ address: '127.0.0.1', family: 4 }]) : done(null, '127.0.0.1', 4);

/** Of a daemon of their own: one that has carried much has free memory that would be taken for nothing. */
export async function previewRows(floor: Floor): Promise<Row[]> {
  const daemon = await startTestDaemon({ vmm: 'qemu' });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  const caPath = join(daemon.dataDirectory, 'preview', 'preview.localhost.ca.pem');
  const agent = new Agent({ ca: await readFile(caPath), keepAlive: true, lookup: toLoopback } as object);
  try {
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
    await sandbox.files.write('/root/service.js', SERVICE);
    await sandbox.files.write('/root/client.js', CLIENT);
    // What types and what downloads share no program in the guest.
    const [small, bulk] = [await serve(sandbox, 3000), await serve(sandbox, 3001)];
    return [
      await openWebSockets(small, agent, daemon),
      await smallRequest(sandbox, small, agent, daemon),
      await download(bulk, agent, floor),
      ...(await keystrokes(sandbox, bulk, caPath, daemon)),
    ];
  } finally {
    agent.destroy();
    client.close();
    await daemon.stop();
  }
}

/** @returns the address of a service */
async function serve(sandbox: Sandbox, port: number): Promise<string> {
  const wait = `until curl -sf -o /dev/null http://127.0.0.1:${port}/; do sleep 0.1; done`;
  await sandbox.run(`setsid node /root/service.js ${port} >/root/${port}.log 2>&1 & ${wait}`, { timeoutMs: 60_000 });
  return (await sandbox.shares.create({ port, isPublic: true })).url;
}

/** @returns how many bytes came */
async function ask(url: string, agent: Agent): Promise<number> {
  const asked = request(url, { agent });
  asked.end();
  const [answer] = (await once(asked, 'response')) as [IncomingMessage];
  let size = 0;
  answer.on('data', (chunk: Buffer) => {
    size += chunk.length;
  });
  await once(answer, 'end');
  if (answer.statusCode !== 200) throw new Error(`status ${answer.statusCode}`);
  return size;
}

async function openWebSockets(url: string, agent: Agent, daemon: TestDaemon): Promise<Row> {
  const ours = await grownByWebSockets(url, agent, daemon.pid);
  const ca = await createLocalCa(join(daemon.dataDirectory, 'preview'), 'preview.localhost');
  const listener = await startBareListener(await ca.issue(new Date()));
  const bare = await grownByWebSockets(`https://floor.preview.localhost:${listener.port}/`, agent, listener.pid);
  await listener.end();
  return {
    name: `daemon memory of ${OPEN_WEBSOCKETS} open WebSockets through previews`,
    measured: `${ours.toFixed(0)} MB`,
    floor: `${bare.toFixed(0)} MB by TLS alone`,
    ratio: (ours / bare).toFixed(2),
    target: '≤ 60 MB',
  };
}

/** @returns MB of the process that takes them */
async function grownByWebSockets(url: string, agent: Agent, pid: number): Promise<number> {
  const open = async (): Promise<WebSocket> => {
    const socket = new WebSocket(url.replace('https', 'wss'), { agent, perMessageDeflate: false });
    await once(socket, 'open');
    return socket;
  };
  const sockets: WebSocket[] = [await open()];
  const before = await rssMib(pid);
  while (sockets.length < OPEN_WEBSOCKETS)
    sockets.push(...(await Promise.all(Array.from({ length: OPENED_AT_ONCE }, open))));
  const grown = (await rssMib(pid)) - before;
  for (const socket of sockets) socket.terminate();
  return (grown * 2 ** 20) / 1e6;
}

async function smallRequest(sandbox: Sandbox, url: string, agent: Agent, daemon: TestDaemon): Promise<Row> {
  const [ours, inside, loopback]: [number[], number[], number[]] = [[], [], []];
  const ca = await createLocalCa(join(daemon.dataDirectory, 'preview'), 'preview.localhost');
  const server = createServer(await ca.issue(new Date()), (_request, response) => response.end('small'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const beside = `https://floor.preview.localhost:${(server.address() as AddressInfo).port}/`;
  const times = async (of: string): Promise<number> => {
    const each: number[] = [];
    for (let n = 0; n < REQUESTS; n++) each.push(await timed(() => ask(of, agent)));
    return median(each.slice(REQUESTS / 4));
  };
  for (let round = 0; round < ROUNDS; round++) {
    inside.push(await askedInside(sandbox));
    loopback.push(await times(beside));
    ours.push(await times(url));
  }
  server.close();
  server.closeAllConnections();
  const least = median(inside) + median(loopback);
  return {
    name: 'small request through a preview',
    measured: `${median(ours).toFixed(2)} ms`,
    floor: `${least.toFixed(2)} ms`,
    ratio: (median(ours) / least).toFixed(2),
    target: '≤ 1.5 × floor',
  };
}

/** @returns median ms */
async function askedInside(sandbox: Sandbox): Promise<number> {
  const asked = await sandbox.run(['node', '/root/client.js'], { timeoutMs: 120_000 });
  if (asked.exitCode !== 0) throw new Error(asked.stderrText);
  return Number(asked.stdoutText);
}

async function download(url: string, agent: Agent, floor: Floor): Promise<Row> {
  const direct = await floor.clone();
  const rate = (ms: number): number => BULK_BYTES / 1e6 / (ms / 1000);
  const [ours, raw]: [number[], number[]] = [[], []];
  for (let round = 0; round < ROUNDS; round++) {
    raw.push(rate(await direct.rawDownload(BULK_BYTES)));
    const ms = await timed(async () => {
      const size = await ask(`${url}/bulk`, agent);
      if (size !== BULK_BYTES) throw new Error(`the download has ${size} bytes`);
    });
    ours.push(rate(ms));
  }
  await direct.end();
  return {
    name: 'download of 100 MB through a preview',
    measured: `${median(ours).toFixed(0)} MB/s`,
    floor: `${median(raw).toFixed(0)} MB/s raw`,
    ratio: (median(ours) / median(raw)).toFixed(2),
    target: '≥ 0.6 of raw',
  };
}

/** In a terminal of the same sandbox, beside downloads that take all that they can. */
async function keystrokes(sandbox: Sandbox, url: string, caPath: string, daemon: TestDaemon): Promise<Row[]> {
  const socket = await attach(sandbox, daemon, ['cat']);
  const echo = async (): Promise<number> =>
    median(
      await timedEchoes(
        () => socket.send(Buffer.from('x')),
        () => nextBinary(socket),
      ),
    );
  const alone = await echo();
  const rows: Row[] = [];
  const downloads: ChildProcess[] = [];
  for (const count of DOWNLOADS) {
    while (downloads.length < count) downloads.push(await startDownload(url, caPath));
    const ms = await echo();
    rows.push({
      name: `keystroke echo beside ${count} bulk preview download${count === 1 ? '' : 's'}, median`,
      measured: `${ms.toFixed(2)} ms`,
      floor: `${alone.toFixed(2)} ms alone`,
      ratio: (ms / alone).toFixed(1),
      target: '≤ 20 ms',
    });
  }
  for (const child of downloads) {
    child.kill();
    await once(child, 'exit');
  }
  socket.close();
  return rows;
}

/** Resolves when bytes come. */
async function startDownload(url: string, caPath: string): Promise<ChildProcess> {
  const { hostname, port } = new URL(url);
  const argv = ['-sS', '--cacert', caPath, '--resolve', `${hostname}:${port}:127.0.0.1`, '-D', '-', '-o', '/dev/null'];
  const child = spawn('curl', [...argv, `${url}/endless`], { stdio: ['ignore', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return child;
}

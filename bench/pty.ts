/**
 * Terminals: the echo of a keystroke, a burst of output, the report of an end, the memory of idle ones. The floor of the echo is one byte
 * there and back over the bare port, plus one over a WebSocket on the loopback; that of the burst is the bare port's rate.
 */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { InstaVM, Sandbox } from 'instavm';
import { WebSocket, WebSocketServer } from 'ws';
import type { Floor } from './floor.ts';
import { median, percentile, type Row, rssMib } from './report.ts';

const ECHO_ROUNDS = 400;
const EXIT_ROUNDS = 40;
const BURST_ROUNDS = 3;
const BURST_BYTES = 50 * 1024 * 1024;
const IDLE_SANDBOXES = 4;
const IDLE_EACH = 50;

export type Server = { readonly baseUrl: string; readonly apiKey: string; readonly pid: number };

export async function ptyRows(client: InstaVM, floor: Floor, server: Server): Promise<Row[]> {
  const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
  try {
    return [
      ...(await echo(sandbox, floor, server)),
      await burst(sandbox, floor, server),
      await exit(sandbox, server),
      await idle(client, server),
    ];
  } finally {
    await sandbox.delete();
  }
}

/** A viewer as any client would be one, without our SDK's own work in the figure. */
export async function attach(sandbox: Sandbox, server: Server, argv: readonly string[]): Promise<WebSocket> {
  const base = `/v1/sessions/${sandbox.id}/pty`;
  const headers = { 'x-api-key': server.apiKey };
  const created = await fetch(`${server.baseUrl}${base}/sessions`, {
    method: 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: JSON.stringify({ argv }),
  });
  const { id } = (await created.json()) as { id: string };
  const socket = new WebSocket(`${server.baseUrl.replace('http', 'ws')}${base}/${id}/connect`, { headers });
  await once(socket, 'open');
  return socket;
}

export async function nextBinary(socket: WebSocket): Promise<Buffer> {
  for (;;) {
    const [data, isBinary] = (await once(socket, 'message')) as [Buffer, boolean];
    if (isBinary) return data;
  }
}

export async function timedEchoes(send: () => void, received: () => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let round = 0; round < ECHO_ROUNDS; round++) {
    const answer = received();
    const started = performance.now();
    send();
    await answer;
    times.push(performance.now() - started);
  }
  // The first ones translate code.
  return times.slice(ECHO_ROUNDS / 10);
}

async function echo(sandbox: Sandbox, floor: Floor, server: Server): Promise<Row[]> {
  const socket = await attach(sandbox, server, ['cat']);
  const ours = await timedEchoes(
    () => socket.send(Buffer.from('x')),
    () => nextBinary(socket),
  );
  socket.close();
  const clone = await floor.clone();
  const raw = await clone.rawEcho();
  const channel = await timedEchoes(
    () => raw.socket.write('x'),
    () => once(raw.socket, 'data'),
  );
  await raw.end();
  await clone.end();
  const webSocket = await loopbackEchoes();
  const least = median(channel) + median(webSocket);
  const ms = (value: number): string => `${value.toFixed(2)} ms`;
  return [
    {
      name: 'keystroke echo, median',
      measured: ms(median(ours)),
      floor: ms(least),
      ratio: (median(ours) / least).toFixed(2),
      target: '≤ 3 ms, ≤ 3 × floor',
    },
    {
      name: 'keystroke echo, p99',
      measured: ms(percentile(ours, 99)),
      floor: ms(percentile(channel, 99) + percentile(webSocket, 99)),
      ratio: '',
      target: '≤ 15 ms',
    },
  ];
}

async function loopbackEchoes(): Promise<number[]> {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate: false });
  server.on('connection', (socket) => socket.on('message', (data) => socket.send(data)));
  await once(server, 'listening');
  const socket = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  await once(socket, 'open');
  const times = await timedEchoes(
    () => socket.send(Buffer.from('x')),
    () => once(socket, 'message'),
  );
  socket.terminate();
  server.close();
  return times;
}

async function burst(sandbox: Sandbox, floor: Floor, server: Server): Promise<Row> {
  const rates: number[] = [];
  const raw: number[] = [];
  const clone = await floor.clone();
  const rate = (ms: number): number => BURST_BYTES / 1e6 / (ms / 1000);
  for (let round = 0; round < BURST_ROUNDS; round++) {
    raw.push(rate(await clone.rawDownload(BURST_BYTES)));
    const script = `stty raw -echo; echo go; read -rn1; exec head -c ${BURST_BYTES} /dev/zero`;
    const socket = await attach(sandbox, server, ['bash', '-c', script]);
    await nextBinary(socket);
    const all = received(socket, BURST_BYTES);
    const started = performance.now();
    socket.send(Buffer.from('x'));
    await all;
    rates.push(rate(performance.now() - started));
    socket.close();
  }
  await clone.end();
  return {
    name: 'burst of 50 MiB on a terminal',
    measured: `${median(rates).toFixed(0)} MB/s`,
    floor: `${median(raw).toFixed(0)} MB/s raw`,
    ratio: (median(rates) / median(raw)).toFixed(2),
    target: '≥ 0.5 of raw',
  };
}

function received(socket: WebSocket, bytes: number): Promise<void> {
  let count = 0;
  return new Promise((resolve, reject) => {
    socket.on('message', (data: Buffer, isBinary) => {
      if (isBinary) count += data.length;
      if (count >= bytes) resolve();
    });
    socket.once('close', (code) => reject(new Error(`the terminal closed with ${code} after ${count} bytes`)));
  });
}

/** From the keystroke that ends the program to the exit frame: an upper bound of what the report itself takes. */
async function exit(sandbox: Sandbox, server: Server): Promise<Row> {
  const times: number[] = [];
  for (let round = 0; round < EXIT_ROUNDS; round++) {
    const socket = await attach(sandbox, server, ['sh', '-c', 'stty -echo; echo ready; read line']);
    await nextBinary(socket);
    const ended = once(socket, 'close');
    const started = performance.now();
    socket.send(Buffer.from('\n'));
    await ended;
    times.push(performance.now() - started);
  }
  return {
    name: 'keystroke that ends the program → exit frame',
    measured: `${median(times).toFixed(1)} ms`,
    floor: '',
    ratio: '',
    target: '≤ 20 ms',
  };
}

async function idle(client: InstaVM, server: Server): Promise<Row> {
  const sandboxes = await Promise.all(Array.from({ length: IDLE_SANDBOXES }, () => client.sandboxes.create()));
  for (const sandbox of sandboxes) await (await attach(sandbox, server, ['cat'])).close();
  const before = await rssMib(server.pid);
  const sockets: WebSocket[] = [];
  for (const sandbox of sandboxes)
    for (let count = 0; count < IDLE_EACH; count++) sockets.push(await attach(sandbox, server, ['cat']));
  const grown = (await rssMib(server.pid)) - before;
  for (const socket of sockets) socket.close();
  await Promise.all(sandboxes.map((sandbox) => sandbox.delete()));
  return {
    name: `daemon memory for each of ${IDLE_SANDBOXES * IDLE_EACH} idle terminals`,
    measured: `${Math.max(0, (grown * 1024) / (IDLE_SANDBOXES * IDLE_EACH)).toFixed(0)} KiB`,
    floor: '',
    ratio: '',
    target: '≤ 100 KB',
  };
}

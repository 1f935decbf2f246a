import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { FirecrackerApi, FirecrackerFault } from './api.ts';

const DEADLINES = { callMs: 200, snapshotMs: 400 };
const PAIR = { snapshot_path: 'state', mem_file_path: 'memory' };

let directory: string;
let server: Server | undefined;
const open = new Set<Socket>();
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-api-'));
});
afterEach(() => {
  for (const socket of open) socket.destroy();
  server?.close();
});
afterAll(() => rm(directory, { recursive: true, force: true }));

/** @param serve what stands for Firecracker does with a connection */
async function apiOf(serve: (socket: Socket) => void): Promise<FirecrackerApi> {
  const path = join(directory, 'api.sock');
  server = createServer((socket) => {
    open.add(socket.on('error', () => {}).once('close', () => open.delete(socket)));
    serve(socket);
  }).listen(path);
  await once(server, 'listening');
  const dial = async (): Promise<Socket> => {
    const socket = connect(path);
    await once(socket, 'connect');
    return socket;
  };
  return new FirecrackerApi(dial, DEADLINES);
}

const callsOf = (api: FirecrackerApi): Promise<unknown>[] => [
  api.info(),
  api.setState('Paused'),
  api.put('/snapshot/create', { snapshot_type: 'Full', ...PAIR }),
];

describe('every call to Firecracker', () => {
  it('fails by its name and within its time when nobody answers', async () => {
    const outcomes = await Promise.allSettled(callsOf(await apiOf(() => {})));
    expect(outcomes.map((outcome) => outcome.status === 'rejected' && String(outcome.reason))).toEqual([
      'FirecrackerFault: GET /: no answer within 200 ms',
      'FirecrackerFault: PATCH /vm: no answer within 200 ms',
      'FirecrackerFault: PUT /snapshot/create: no answer within 400 ms',
    ]);
  });

  it('fails as well when an answer never comes to its end, however lively it is', async () => {
    const api = await apiOf((socket) => {
      socket.write('HTTP/1.1 200\r\ncontent-length: 1000\r\n\r\n');
      const drip = setInterval(() => socket.write(' '), 20);
      socket.once('close', () => clearInterval(drip));
    });
    await expect(api.info()).rejects.toThrow('GET /: no answer within 200 ms');
  });

  it.each([
    ['hangs up', (socket: Socket) => socket.destroy()],
    ['speaks no HTTP', (socket: Socket) => void socket.write('garbage\r\n\r\n')],
    ['sends too much', (socket: Socket) => void socket.write(`HTTP/1.1 200\r\n\r\n${'x'.repeat(100_000)}`)],
    ['says something else', (socket: Socket) => void socket.end('HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}')],
  ])('fails when the other side %s', async (_, serve) => {
    await expect((await apiOf(serve)).info()).rejects.toThrow(FirecrackerFault);
  });

  it('says what Firecracker says', async () => {
    const body = '{"fault_message":"not now"}';
    const api = await apiOf((socket) => socket.end(`HTTP/1.1 400\r\ncontent-length: ${body.length}\r\n\r\n${body}`));
    await expect(api.setState('Resumed')).rejects.toThrow('PATCH /vm: not now');
  });
});

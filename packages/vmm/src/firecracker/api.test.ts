import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { FirecrackerApi, FirecrackerFault } from './api.ts';

const DEADLINES = { callMs: 60_000, snapshotMs: 60_000 };
const SHORT = { callMs: 200, snapshotMs: 400 };
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n';
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
async function apiOf(serve: (socket: Socket) => void, deadlines = DEADLINES): Promise<FirecrackerApi> {
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
  return new FirecrackerApi(dial, deadlines);
}

const callsOf = (api: FirecrackerApi): Promise<unknown>[] => [
  api.info(),
  api.setState('Paused'),
  api.put('/snapshot/create', { snapshot_type: 'Full', ...PAIR }),
];

describe('every call to Firecracker', () => {
  it('fails by its name and within its time when nobody answers', async () => {
    const outcomes = await Promise.allSettled(callsOf(await apiOf(() => {}, SHORT)));
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
    }, SHORT);
    await expect(api.info()).rejects.toThrow('GET /: no answer within 200 ms');
  });

  it.each([
    ['hangs up', (socket: Socket) => socket.destroy()],
    ['speaks no HTTP', (socket: Socket) => void socket.write('garbage\r\n\r\n')],
    ['sends too much', (socket: Socket) => void socket.write(`HTTP/1.1 200\r\n\r\n${'x'.repeat(100_000)}`)],
    ['changes to another protocol', (socket: Socket) => void socket.write(SWITCH)],
    ['says something else', (socket: Socket) => void socket.end('HTTP/1.1 200\r\ncontent-length: 2\r\n\r\n{}')],
  ])('fails when the other side %s', async (_, serve) => {
    await expect((await apiOf(serve)).info()).rejects.toThrow(FirecrackerFault);
  });

  it('fails when an answer is always about to come', async () => {
    const api = await apiOf((socket) => {
      const drip = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), 20);
      socket.once('close', () => clearInterval(drip));
    }, SHORT);
    await expect(api.info()).rejects.toThrow('GET /: no answer within 200 ms');
  });

  it('fails by its name or is answered, whatever bytes come, and leaves no connection', async () => {
    let answer: Uint8Array = Buffer.alloc(0);
    const api = await apiOf((socket) => socket.once('data', () => socket.end(answer)));
    const body = '{"state":"Running","vmm_version":"1"}';
    const good = `HTTP/1.1 200 \r\nContent-Length: ${body.length}\r\n\r\n${body}`;
    const mangled = fc.tuple(fc.nat({ max: good.length - 1 }), fc.nat({ max: 255 })).map(([index, value]) => {
      const bytes = Buffer.from(good);
      bytes[index] = value;
      return new Uint8Array(bytes);
    });
    await fc.assert(
      fc.asyncProperty(fc.oneof(fc.uint8Array({ maxLength: 400 }), mangled), async (bytes) => {
        answer = bytes;
        await api.info().catch((error: unknown) => expect(error).toBeInstanceOf(FirecrackerFault));
      }),
      { numRuns: 150, examples: [[Buffer.from(good)]] },
    );
    await expect.poll(() => open.size).toBe(0);
  });

  it('says what Firecracker says', async () => {
    const body = '{"fault_message":"not now"}';
    const api = await apiOf((socket) => socket.end(`HTTP/1.1 400\r\ncontent-length: ${body.length}\r\n\r\n${body}`));
    await expect(api.setState('Resumed')).rejects.toThrow('PATCH /vm: not now');
  });
});

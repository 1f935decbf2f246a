/** The client of Firecracker's API against peers that are not Firecracker. */
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { tryConnect } from '../host/sockets.ts';
import { FirecrackerApi, FirecrackerFault } from './api.ts';

let directory: string;
let server: Server;
const peers = new Set<Socket>();
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-api-'));
});
afterEach(async () => {
  server.close();
  for (const peer of peers) peer.destroy();
  await rm(directory, { recursive: true, force: true });
});

async function apiOf(answer: (socket: Socket) => void, deadlineMs: number): Promise<FirecrackerApi> {
  server = createServer((socket) => {
    peers.add(socket.on('error', () => {}).on('close', () => peers.delete(socket)));
    socket.once('data', () => answer(socket));
  }).listen(join(directory, 'api.sock'));
  await once(server, 'listening');
  const connect = async (): Promise<Socket> => (await tryConnect(directory, 'api.sock')) ?? Promise.reject(new Error());
  return new FirecrackerApi(connect, deadlineMs);
}

const settled = (api: FirecrackerApi): Promise<unknown> =>
  api.info().then(
    () => 'answered',
    (error: unknown) => error,
  );

describe('an answer', () => {
  it('of any bytes is one, or a fault with a name, and leaves no connection', async () => {
    let answer: Uint8Array = Buffer.alloc(0);
    const api = await apiOf((socket) => socket.end(answer), 2_000);
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
        const outcome = await settled(api);
        if (outcome !== 'answered') expect(outcome).toBeInstanceOf(FirecrackerFault);
      }),
      { numRuns: 150 },
    );
    answer = Buffer.from(good);
    expect(await settled(api)).toBe('answered');
    await expect.poll(() => peers.size).toBe(0);
  });

  it.each([
    ['that never comes', () => {}],
    [
      'that comes a byte at a time and has no end',
      (socket: Socket) => {
        socket.write('HTTP/1.1 200 \r\nContent-Length: 60000\r\n\r\n');
        const timer = setInterval(() => socket.write(' '), 20);
        socket.once('close', () => clearInterval(timer));
      },
    ],
    [
      'that is always about to come',
      (socket: Socket) => {
        const timer = setInterval(() => socket.write('HTTP/1.1 100 Continue\r\n\r\n'), 20);
        socket.once('close', () => clearInterval(timer));
      },
    ],
  ])('%s is a fault when the time is over', async (_, answer) => {
    const api = await apiOf(answer, 300);
    const startedAt = performance.now();
    const fault = await settled(api);
    expect(fault).toMatchObject({ name: 'FirecrackerFault', message: 'GET /: no answer within 300 ms' });
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    await expect.poll(() => peers.size).toBe(0);
  });

  it('that is a flood is cut off', async () => {
    const api = await apiOf((socket) => {
      socket.write('HTTP/1.1 200 \r\nContent-Length: 1000000000\r\n\r\n');
      const flood = (): void => void socket.write(Buffer.alloc(65_536), () => socket.destroyed || flood());
      flood();
    }, 10_000);
    expect(await settled(api)).toMatchObject({ message: 'GET /: the answer is too long' });
    await expect.poll(() => peers.size).toBe(0);
  });
});

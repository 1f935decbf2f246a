import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ACKN, NONCE_BYTES, SYNC } from '@instavm/agent-client';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { tryConnect } from '../host/sockets.ts';
import { connectVsock } from './vsock.ts';

const TARGET = { port: 10, proven: false };
let directory: string;
let server: Server;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-vsock-'));
});
afterEach(async () => {
  server.close();
  await rm(directory, { recursive: true, force: true });
});

/** Stands where Firecracker listens. `each` gets the number of the connection, from 0. */
async function listen(each: (socket: Socket, number: number) => void): Promise<void> {
  let number = 0;
  server = createServer((socket) => {
    socket.on('error', () => {});
    each(socket, number++);
  });
  server.listen(join(directory, 'vsock.sock'));
  await once(server, 'listening');
}

const connect = (target = TARGET, deadlineMs = 60_000): Promise<Socket | undefined> =>
  connectVsock(
    () => tryConnect(directory, 'vsock.sock'),
    target,
    deadlineMs,
    () => false,
  );

test('names the port, and leaves what follows the answer to the caller', async () => {
  const heard: string[] = [];
  await listen((socket) =>
    socket.once('data', (line) => {
      heard.push(String(line));
      socket.write('OK 1073741824\nhello');
    }),
  );
  const socket = await connect();
  expect(heard).toEqual(['CONNECT 10\n']);
  expect(String((await once(socket as Socket, 'data'))[0])).toBe('hello');
  socket?.destroy();
});

test('tries again after a refusal, an answer that is none, and one without an end', async () => {
  const answers = ['', 'NO\n', 'x'.repeat(1000), 'OK 7\n'];
  await listen((socket, number) => {
    const answer = answers[number] ?? '';
    if (answer === '') socket.destroy();
    else socket.write(answer);
  });
  const socket = await connect();
  expect(socket).toBeDefined();
  socket?.destroy();
});

test('a connection that is lost before the agent has answered is made again', async () => {
  await listen((socket, number) => {
    let bytes = Buffer.alloc(0);
    socket.on('data', (piece) => {
      bytes = Buffer.concat([bytes, piece]);
      if (bytes.length === piece.length) socket.write('OK 7\n');
      const at = bytes.indexOf(SYNC);
      if (at < 0) return;
      if (number === 0) socket.destroy();
      else socket.write(Buffer.concat([ACKN, bytes.subarray(at + SYNC.length, at + SYNC.length + NONCE_BYTES)]));
    });
  });
  const socket = await connect({ port: 10, proven: true });
  expect(socket).toBeDefined();
  socket?.destroy();
});

test('gives up when nobody listens for as long as there is time', async () => {
  server = createServer();
  expect(await connect(TARGET, 50)).toBeUndefined();
});

describe('a peer that is none', () => {
  const DEADLINE_MS = 120;
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 64 }),
    fc
      .constantFrom('OK 7\n', 'OK 7', '\n', 'OK -1\n', ACKN.toString('latin1'))
      .map((text) => Buffer.from(text, 'latin1')),
  );
  const step = fc.oneof(
    fc.record({ do: fc.constant('write' as const), bytes }),
    fc.record({ do: fc.constantFrom('wait', 'end', 'destroy', 'flood', 'drip' as const) }),
  );
  type Step = typeof step extends fc.Arbitrary<infer T> ? T : never;

  async function perform(socket: Socket, steps: readonly Step[]): Promise<void> {
    for (const each of steps) {
      if (socket.destroyed) return;
      if (each.do === 'write') socket.write(each.bytes);
      if (each.do === 'wait') await sleep(10);
      // Half of the connection stays open.
      if (each.do === 'end') socket.end();
      if (each.do === 'destroy') socket.destroy();
      const until = performance.now() + DEADLINE_MS;
      // A line that never ends, fast and slowly.
      while (each.do === 'flood' && !socket.destroyed && performance.now() < until)
        await new Promise((resolve) => socket.write(Buffer.alloc(65_536, '7'), resolve));
      while (each.do === 'drip' && !socket.destroyed && performance.now() < until) {
        socket.write('O');
        await sleep(5);
      }
    }
  }

  test('costs no more than the time that there was, whatever it says, and no connection is left', async () => {
    let steps: readonly Step[] = [];
    const peers = new Set<Socket>();
    await listen((socket) => {
      peers.add(socket.on('close', () => peers.delete(socket)).resume());
      void perform(socket, steps);
    });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 5 }), fc.boolean(), async (chosen, proven) => {
        steps = chosen;
        // A busy machine may be late, this timer as well; and never by an attempt.
        const late = sleep(DEADLINE_MS).then(() => sleep(2_000, 'late' as const, { ref: false }));
        const socket = await Promise.race([connect({ port: 10, proven }, DEADLINE_MS), late]);
        if (socket === 'late') throw new Error('it took longer than there was time');
        // Nobody here can answer a nonce.
        if (proven) expect(socket).toBeUndefined();
        socket?.destroy();
        await expect.poll(() => peers.size, { interval: 5 }).toBe(0);
      }),
      { numRuns: 25 },
    );
  });
});

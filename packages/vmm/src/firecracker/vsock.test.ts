import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ACKN, NONCE_BYTES, SYNC } from '@instavm/agent-client';
import { afterEach, beforeEach, expect, test } from 'vitest';
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

const connect = (target = TARGET, deadlineMs = 5_000): Promise<Socket | undefined> =>
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

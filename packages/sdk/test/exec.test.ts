/** Commands of the TypeScript client, against a server whose frames come as they rarely do. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { InstaVM, type Sandbox } from 'instavm';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type WebSocket, WebSocketServer } from 'ws';

const STARTED = '{"type":"started","pid":1}';
const EXIT = '{"type":"exit","exit_code":0,"signal":null,"timed_out":false,"wall_time_ms":1,"cpu_time_ms":1}';
const MIB = 1024 * 1024;

let server: Server;
let sockets: WebSocketServer;
let client: InstaVM;
let sandbox: Sandbox;
beforeEach(async () => {
  server = createServer().listen(0, '127.0.0.1');
  sockets = new WebSocketServer({ noServer: true });
  await once(server, 'listening');
  client = new InstaVM({ apiKey: 'k', baseUrl: `http://127.0.0.1:${port()}` });
  sandbox = client.sandboxes.attach('00000000-0000-4000-8000-000000000000');
});
afterEach(() => {
  client.close();
  for (const socket of sockets.clients) socket.terminate();
  server.close();
});

const port = (): number => (server.address() as AddressInfo).port;

/** Serves each command from its start frame on. */
function serve(answer: (socket: WebSocket, raw: Socket) => void): void {
  server.on('upgrade', (request, raw: Socket, head) =>
    sockets.handleUpgrade(request, raw, head, (socket) => socket.once('message', () => answer(socket, raw))),
  );
}

const output = (stream: 1 | 2, sizeBytes: number): Buffer =>
  Buffer.concat([Buffer.of(stream), Buffer.alloc(sizeBytes)]);

describe('a command of the client', () => {
  it('that ends before it was given its input has ended, and not failed', async () => {
    serve((socket, raw) => {
      raw.cork();
      socket.send(STARTED);
      socket.send(output(1, 3));
      socket.send(EXIT);
      socket.close(1000);
      raw.uncork();
    });
    await expect(sandbox.run('true', { input: 'not read' })).resolves.toMatchObject({
      exitCode: 0,
      stdoutText: '\0\0\0',
    });
  });

  it('waits while either of its streams is full, also when the other one is read', async () => {
    let taken = 0;
    serve((socket, raw) => {
      socket.send(STARTED);
      // Both are filled up, and beyond by one packet.
      for (const stream of [1, 2] as const) socket.send(output(stream, MIB));
      raw.cork();
      for (const stream of [1, 2] as const) socket.send(output(stream, 1));
      raw.uncork();
      const more = (): void =>
        socket.send(output(1, MIB), (error) => {
          if (error) return;
          taken += 1;
          setImmediate(more);
        });
      more();
    });
    const exec = await sandbox.exec('yes');
    const rests = async (): Promise<boolean> => {
      const before = taken;
      await new Promise((resolve) => setTimeout(resolve, 300));
      return taken > 0 && taken === before;
    };
    await expect.poll(rests).toBe(true);
    let read = 0;
    for await (const chunk of exec.stderr) {
      read += chunk.length;
      if (read > MIB) break;
    }
    await expect.poll(rests).toBe(true);
    // What the kernel holds on the way, at most.
    expect(taken).toBeLessThan(64);
    exec.close();
  });

  it('is refused also when the refusal breaks off', async () => {
    server.on('upgrade', (_, raw: Socket) => {
      raw.end('HTTP/1.1 503 Refused\r\ncontent-length: 100\r\n\r\n{"code":');
    });
    await expect(sandbox.exec('true')).rejects.toMatchObject({ status: 503 });
  });

  it('survives frames that make no sense', async () => {
    serve((socket) => {
      for (const frame of ['{', 'null', '[]', '{"type":"new"}', STARTED, EXIT]) socket.send(frame);
    });
    await expect(sandbox.run('true')).resolves.toMatchObject({ exitCode: 0 });
  });

  it('asks whether its silent server is still there', async () => {
    serve((socket) => socket.send(STARTED));
    const exec = await sandbox.exec('sleep 3600');
    // proc(5): of each connection the remote address and port, and as "tr" which timer runs; 2 is that of keepalive.
    const timers = (await readFile('/proc/self/net/tcp', 'utf8'))
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , remote, state]) => remote === `0100007F:${hex(port())}` && state === '01')
      .map((fields) => fields[5]?.split(':')[0]);
    expect(timers).toEqual(['02']);
    exec.close();
  });
});

const hex = (number: number): string => number.toString(16).toUpperCase().padStart(4, '0');

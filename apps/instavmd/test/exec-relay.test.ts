/** The relay of one command between a real WebSocket and a guest that takes nothing. */
import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { expect, it } from 'vitest';
import { WebSocket, WebSocketServer } from 'ws';
import type { Guest } from '../src/guest/guest.ts';
import { relayExec } from '../src/ws/exec.ts';

it.each([
  ['signals', '{"type":"signal","signal":"SIGINT"}'],
  ['input of no bytes', Buffer.alloc(0)],
])('reads no more of a client whose frames nobody takes: %s', async (_what, frame) => {
  async function* run(_messages: unknown, { signal }: { signal: AbortSignal }) {
    yield await once(signal, 'abort');
  }
  const guest = { agent: { exec: { run } } } as unknown as Guest;
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0 });
  await once(server, 'listening');
  const client = new WebSocket(`ws://127.0.0.1:${(server.address() as AddressInfo).port}`);
  const [[socket]] = await Promise.all([once(server, 'connection'), once(client, 'open')]);
  const relayed = relayExec(socket, guest, { debug: () => {}, info: () => {} } as never);
  client.send('{"type":"start","argv":["sleep","60"],"stdin":true}');
  for (let count = 0; count < 8_000; count++) client.send(frame);
  await expect.poll(() => socket.isPaused).toBe(true);
  client.terminate();
  socket.terminate();
  await relayed;
  server.close();
});

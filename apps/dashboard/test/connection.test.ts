/** The terminal's connection, with a server whose frames take their time. In a browser: tests/e2e/dashboard. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Terminal } from '@xterm/xterm';
import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { type WebSocket as ServerSocket, WebSocketServer } from 'ws';
import { TerminalConnection } from '../src/pages/sandbox/terminal/connection.ts';

let server: Server;
let sockets: WebSocketServer;
beforeEach(async () => {
  server = createServer((_, response) => response.end('{"token":"once"}')).listen(0, '127.0.0.1');
  sockets = new WebSocketServer({ server });
  await once(server, 'listening');
  const origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  vi.stubGlobal('location', { origin });
  const { fetch } = globalThis;
  vi.stubGlobal('fetch', (path: string, init: RequestInit) => fetch(origin + path, init));
});
afterEach(() => {
  vi.unstubAllGlobals();
  for (const socket of sockets.clients) socket.terminate();
  server.closeAllConnections();
  server.close();
});

it('types what was typed before it was attached, and in that order', async () => {
  let type = (_text: string): void => {};
  const terminal = {
    ...{ cols: 80, rows: 24, onBinary: () => {}, onResize: () => {} },
    onData: (listener: (text: string) => void) => {
      type = listener;
    },
  };
  const connection = new TerminalConnection('one', 'p', terminal as unknown as Terminal, () => {});
  type('first, ');
  const [socket] = (await once(sockets, 'connection')) as [ServerSocket];
  let typed = '';
  socket.on('message', (data, isBinary) => {
    if (isBinary) typed += data;
  });
  // The browser has it open before anything else has come.
  const opened = once(socket, 'pong');
  socket.ping();
  await opened;
  type('second');
  socket.send('{"type":"attached","offset":0}');
  await expect.poll(() => typed).toContain('first');
  await expect.poll(() => typed).toContain('second');
  expect(typed).toBe('first, second');
  connection.close();
});

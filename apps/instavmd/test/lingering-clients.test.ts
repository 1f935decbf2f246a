/** Clients that keep their side of a connection open though the daemon has nothing more to say: they hold neither it nor its end. */
import { once } from 'node:events';
import { connect, type Socket } from 'node:net';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Api, apiOf } from './api.ts';

describe('a client that never goes', () => {
  let daemon: TestDaemon;
  let api: Api;
  const sockets: Socket[] = [];
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
  });
  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    await daemon.stop();
  });

  /** @returns with what it was answered first */
  const saying = async (text: string): Promise<[client: Socket, answer: string]> => {
    const { hostname: host, port } = new URL(daemon.baseUrl);
    const client = connect({ host, port: Number(port), allowHalfOpen: true });
    sockets.push(client);
    client.on('error', () => {});
    client.write(text);
    const [answer] = await once(client, 'data');
    client.resume();
    return [client, String(answer)];
  };
  const upgrade = (path: string): string =>
    `GET ${path} HTTP/1.1\r\nHost: x\r\nX-API-Key: ${daemon.apiKey}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n';

  it.each([
    ['what was refused a WebSocket', () => `${upgrade('/nowhere')}and what it would have said`, '404'],
    ['what does not speak HTTP', () => 'nonsense\r\n\r\n', '400'],
  ])('is cut off: %s', async (_what, said, status) => {
    const [client, answer] = await saying(said());
    expect(answer).toMatch(new RegExp(`^HTTP/1.1 ${status}`));
    // Only the daemon's end of the connection being gone makes writing fail.
    await expect.poll(() => (client.destroyed ? 'gone' : client.write(' '))).toBe('gone');
  });

  it('does not keep the daemon from ending, though its WebSocket never answers the close', async () => {
    const id = await api.createSession();
    const [, answer] = await saying(upgrade(`/v2/sandboxes/${id}/exec`));
    expect(answer).toMatch(/^HTTP\/1.1 101/);
    await daemon.stop();
  });
});

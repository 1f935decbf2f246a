import { once } from 'node:events';
import { constants, createServer as createGuest, type ServerHttp2Stream } from 'node:http2';
import { connect, createServer } from 'node:net';
import { ACKN, AgentClient, NONCE_BYTES, SYNC } from '@instavm/agent-client';
import { describe, expect, it } from 'vitest';
import { exchanged } from './exchanged.ts';

const EMPTY_SETTINGS = Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]);

/** What is thrown in a tick of Node's own is nobody's to catch: it fails the run. */
it('a client that is closed as soon as it is open ends quietly, though the guest began to speak right behind its answer', async () => {
  const listener = createServer((socket) => {
    socket
      .on('error', () => {})
      .once('readable', () => {
        const sync = socket.read(SYNC.length + NONCE_BYTES) as Buffer;
        socket.write(Buffer.concat([ACKN, sync.subarray(SYNC.length), EMPTY_SETTINGS]));
        socket.resume();
      });
  });
  await once(listener.listen(0, '127.0.0.1'), 'listening');
  const stream = connect((listener.address() as { port: number }).port, '127.0.0.1');
  const agent = await AgentClient.open(stream, 60_000);
  agent.close();
  await agent.closed;
  await new Promise((resolve) => listener.close(resolve));
});

describe('a call that has no answer yet', () => {
  /** @param answer what the guest does with it */
  async function asked(
    answer: (stream: ServerHttp2Stream) => void,
  ): Promise<{ agent: AgentClient; call: Promise<unknown> }> {
    const server = createGuest();
    const heard = once(server, 'stream');
    server.on('stream', (stream) => answer(stream.on('error', () => {})));
    const agent = await AgentClient.open(await exchanged(server), 60_000);
    const call = agent.lifecycle.ping({});
    call.catch(() => {});
    await heard;
    return { agent, call };
  }

  it('fails when its client is closed, and is not waited for for ever', async () => {
    const { agent, call } = await asked(() => {});
    agent.close();
    await expect(call).rejects.toMatchObject({ reason: 'channel_lost' });
  });

  it('fails when the guest ends it, and says that all is well', async () => {
    const { agent, call } = await asked((stream) => stream.close(constants.NGHTTP2_NO_ERROR));
    await expect(call).rejects.toMatchObject({ reason: 'protocol' });
    agent.close();
  });
});

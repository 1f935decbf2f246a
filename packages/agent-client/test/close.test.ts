import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { ACKN, AgentClient, NONCE_BYTES, SYNC } from '@instavm/agent-client';
import { it } from 'vitest';

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

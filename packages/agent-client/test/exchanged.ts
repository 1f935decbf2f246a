/** For tests whose guest is a scripted HTTP/2 server. */
import { once } from 'node:events';
import type { Http2Server } from 'node:http2';
import { connect, createServer as createListener, type Socket } from 'node:net';
import { ACKN, SYNC } from '@instavm/agent-client';

const NONCE_BYTES = 16;

/** A connection whose other end answers SYNC and then is the server's. */
export async function exchanged(server: Http2Server): Promise<Socket> {
  const listener = createListener((socket) => {
    socket.on('error', () => {});
    socket.once('readable', () => {
      const sync = socket.read(SYNC.length + NONCE_BYTES) as Buffer;
      socket.write(Buffer.concat([ACKN, sync.subarray(SYNC.length)]));
      server.emit('connection', socket);
    });
  });
  await once(listener.listen(0, '127.0.0.1'), 'listening');
  const { port } = listener.address() as { port: number };
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  listener.close();
  return socket;
}

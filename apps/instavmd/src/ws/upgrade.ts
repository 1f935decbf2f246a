/** WebSocket upgrades: authenticated and refused as ordinary HTTP, then handed to the relay of the route. */
import type { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { errorBody, InstaVMError } from '@instavm/wire';
import type { FastifyInstance } from 'fastify';
import { WebSocketServer } from 'ws';
import type { Services } from '../app.ts';
import { authenticate } from '../auth.ts';
import { asInstaVMError } from '../errors.ts';
import { ownerOf } from '../routes/views.ts';
import { relayExec } from './exec.ts';

const EXEC_ROUTE = /^\/v2\/sandboxes\/([^/]+)\/exec$/;
const TERMINAL_ROUTE = /^\/v1\/(sessions|vms)\/[^/]+\/pty\/[^/]+\/connect$/;
/** A client that is gone is noticed by its host, not by its silence: one that reads slowly is silent too. */
const TCP_KEEPALIVE_MS = 30_000;
/** The largest frame of a client: a script in the start frame. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;

export function serveWebSockets(app: FastifyInstance, services: Services): void {
  const server = new WebSocketServer({ noServer: true, maxPayload: MAX_FRAME_BYTES, perMessageDeflate: false });

  const accept = async (request: IncomingMessage, socket: Duplex, head: Buffer): Promise<void> => {
    const [path = ''] = (request.url ?? '/').replace(/^\/{2,}/, '/').split('?', 1);
    if (TERMINAL_ROUTE.test(path))
      throw new InstaVMError('not_available', 'terminals are not available on this server');
    const id = EXEC_ROUTE.exec(path)?.[1];
    if (id === undefined) throw new InstaVMError('route_not_found', `there is no WebSocket at ${path}`);
    const account = await authenticate(services.accounts, request.headers['x-api-key']);
    const owner = await ownerOf(services, account.id, id);
    const guest = await owner.guest();
    server.handleUpgrade(request, socket, head, (webSocket) => {
      relayExec(webSocket, guest, app.log).catch((error: unknown) => {
        app.log.error({ err: error }, 'exec relay');
        webSocket.terminate();
      });
    });
  };

  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    if (socket instanceof Socket) socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
    accept(request, socket, head).catch((error: unknown) => {
      const failure = asInstaVMError(error);
      const requestId = crypto.randomUUID();
      if (failure.status >= 500) app.log.error({ err: error, requestId }, failure.message);
      refuse(socket, failure, requestId);
    });
  });
  app.addHook('preClose', async () => {
    for (const client of server.clients) client.close(1001, 'the daemon is stopping');
    server.close();
  });
}

function refuse(socket: Duplex, failure: InstaVMError, requestId: string): void {
  const body = JSON.stringify(errorBody(failure, requestId));
  socket.end(
    `HTTP/1.1 ${failure.status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n` +
      `connection: close\r\n\r\n${body}`,
  );
}

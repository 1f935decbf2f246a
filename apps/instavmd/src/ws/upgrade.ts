/** WebSocket upgrades: authenticated and refused as ordinary HTTP, then handed to the relay of the route. */
import type { IncomingMessage } from 'node:http';
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { SandboxId, SandboxOwner } from '@instavm/core';
import { AttachPtyQuery, errorBody, InstaVMError } from '@instavm/wire';
import type { FastifyInstance } from 'fastify';
import { type WebSocket, WebSocketServer } from 'ws';
import { actingFor, recognize, stranger } from '../acting.ts';
import type { Services } from '../app.ts';
import { authenticate, type Caller, requireScope } from '../auth.ts';
import { addressOf } from '../client-address.ts';
import { asInstaVMError, invalidFields } from '../errors.ts';
import { guestError } from '../guest/errors.ts';
import type { Guest } from '../guest/guest.ts';
import { served } from '../operations/tracing.ts';
import { REQUEST_ID_HEADER, requestIdOf } from '../request-id.ts';
import { PTY_SCOPES } from '../routes/ptys.ts';
import { ownerOf } from '../routes/views.ts';
import { relayExec } from './exec.ts';
import { closeCode, PtyRelay } from './pty.ts';

/** A client that is gone is noticed by its host, not by its silence: one that reads slowly is silent too. */
const TCP_KEEPALIVE_MS = 30_000;
/** The largest frame of a client: a script in the start frame. */
const MAX_FRAME_BYTES = 16 * 1024 * 1024;
const CLOSE_UNAUTHENTICATED = 4401;
/** A client that does not answer a close, or does not go after a refusal, is cut off. */
const CLOSING_MS = 1_000;

type Upgrade = {
  readonly request: IncomingMessage;
  readonly url: URL;
  /** Answers the client and serves it; `serve` must listen before it first waits, for frames may be there already. */
  accept(serve: (socket: WebSocket) => Promise<void>): Promise<void>;
  /** Ends it when the right of the caller ends. */
  cutWith(caller: Caller): void;
};
/** What a WebSocket carries. */
type Kind = 'exec' | 'pty';
type Handler = (upgrade: Upgrade, ...ids: string[]) => Promise<void>;

export function serveWebSockets(app: FastifyInstance, services: Services): void {
  const { metrics } = services.operations;
  const server = new WebSocketServer({ noServer: true, maxPayload: MAX_FRAME_BYTES, perMessageDeflate: false });

  const exec: Handler = async ({ request, accept, cutWith }, id = '') => {
    const caller = await authenticate(
      services,
      request.headers['x-api-key'],
      addressOf(request, services.trustedProxies),
    );
    requireScope(caller, 'run');
    cutWith(caller);
    const owner = await ownerOf(services, caller, id);
    holdWhile(request, owner);
    const guest = await owner.guest('suspended');
    await accept((socket) => relayExec(socket, guest, app.log));
  };

  const pty: Handler = async ({ request, url, accept, cutWith }, scope = '', id = '', ptyId = '') => {
    const query = parseQuery(url);
    const grant = await ptyGrant(services, request, url);
    // The contract wants a refused key to be a close code, which every client can read; a refused upgrade tells browsers nothing.
    if (grant === undefined) return accept(async (socket) => socket.close(CLOSE_UNAUTHENTICATED, 'unauthenticated'));
    recognize(grant.caller);
    cutWith(grant.caller);
    const owner = await PTY_SCOPES[scope]?.(services, grant.caller, id);
    if (owner === undefined || !grant.allows(owner.record.id, ptyId))
      throw new InstaVMError('permission_denied', 'the token is for another terminal');
    holdWhile(request, owner);
    const viewer = { owner, ptyId, query: { ...query, read_only: query.read_only || grant.readOnly } };
    const relay = await PtyRelay.attach(viewer, app.log).catch(guestError);
    if (relay instanceof InstaVMError) {
      if (relay.status < 500) throw relay;
      return accept(async (socket) => socket.close(closeCode(relay), relay.code));
    }
    request.socket.once('close', () => relay.detach());
    if (request.socket.destroyed) return relay.detach();
    await accept((socket) => relay.serve(socket));
  };

  const routes: readonly (readonly [RegExp, Kind, Handler])[] = [
    [/^\/v2\/sandboxes\/([^/]+)\/exec$/, 'exec', exec],
    [/^\/v1\/(sessions|vms)\/([^/]+)\/pty\/([^/]+)\/connect$/, 'pty', pty],
  ];

  const dispatch = async (
    request: IncomingMessage,
    id: string,
    upgradeTo: (kind: Kind) => Pick<Upgrade, 'accept' | 'cutWith'>,
  ): Promise<void> => {
    const url = urlOf(request);
    for (const [route, kind, handler] of routes) {
      const ids = route.exec(url.pathname)?.slice(1);
      if (ids === undefined) continue;
      const attributes = { 'instavm.request_id': id };
      return served(request.headers, `WebSocket ${kind}`, attributes, () =>
        handler({ request, url, ...upgradeTo(kind) }, ...ids.map(decodeSegment)),
      );
    }
    throw new InstaVMError('route_not_found', `there is no WebSocket at ${url.pathname}`);
  };

  app.server.on('upgrade', (request: IncomingMessage, socket: Duplex, head: Buffer) => {
    socket.on('error', () => socket.destroy());
    if (socket instanceof Socket) socket.setKeepAlive(true, TCP_KEEPALIVE_MS);
    let webSocket: WebSocket | undefined;
    const acceptAs =
      (kind: Kind): Upgrade['accept'] =>
      (serve) =>
        new Promise((resolve, reject) => {
          server.handleUpgrade(request, socket, head, (accepted) => {
            webSocket = accepted;
            // Also of one that is only told why it is closed: an error that nobody listens for, as of a frame that is none, ends the daemon.
            accepted.on('error', (err) => app.log.debug({ err, reqId: requestId }, 'WebSocket'));
            metrics.webSockets.inc({ kind });
            accepted.once('close', () => metrics.webSockets.dec({ kind }));
            serve(accepted).then(resolve, reject);
          });
        });
    const cut = (): void => {
      if (webSocket === undefined) return void socket.destroy();
      webSocket.close(CLOSE_UNAUTHENTICATED, 'the API key or the sign-in is no longer valid');
      setTimeout(() => socket.destroy(), CLOSING_MS).unref();
    };
    const cutWith: Upgrade['cutWith'] = (caller) => {
      const forget = services.keyConnections.hold(caller, cut);
      if (socket.destroyed) forget();
      else socket.once('close', forget);
    };
    const requestId = requestIdOf(request);
    const acting = stranger(requestId, addressOf(request, services.trustedProxies));
    actingFor(acting, () => dispatch(request, requestId, (kind) => ({ accept: acceptAs(kind), cutWith }))).catch(
      (error: unknown) => {
        const failure = asInstaVMError(error);
        metrics.errors.inc({ code: failure.code });
        actingFor(acting, () => services.audit.refused(failure, 'WebSocket'));
        if (failure.status >= 500) app.log.error({ err: error, reqId: requestId }, failure.message);
        if (webSocket === undefined) refuse(socket, failure, requestId);
        else webSocket.terminate();
      },
    );
  });
  app.addHook('preClose', async () => {
    for (const client of server.clients) client.close(1001, 'the daemon is stopping');
    server.close();
    setTimeout(() => {
      for (const client of server.clients) client.terminate();
    }, CLOSING_MS).unref();
  });
}

/** The sandbox counts as used as long as the connection is open. */
function holdWhile({ socket }: IncomingMessage, owner: SandboxOwner<Guest>): void {
  const release = owner.hold();
  if (socket.destroyed) release();
  else socket.once('close', release);
}

function refuse(socket: Duplex, failure: InstaVMError, requestId: string): void {
  const body = JSON.stringify(errorBody(failure, requestId));
  socket.end(
    `HTTP/1.1 ${failure.status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n` +
      `${REQUEST_ID_HEADER}: ${requestId}\r\nconnection: close\r\n\r\n${body}`,
  );
  // What it sent meanwhile would keep its end from being seen.
  socket.resume();
  setTimeout(() => socket.destroy(), CLOSING_MS).unref();
}

/** @throws malformed_request */
function urlOf(request: IncomingMessage): URL {
  const target = (request.url ?? '/').replace(/^\/{2,}/, '/');
  const url = URL.parse(target, 'http://daemon');
  if (url === null) throw new InstaVMError('malformed_request', 'the request target is not a URL');
  return url;
}

/** @throws malformed_request */
function decodeSegment(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch (cause) {
    throw new InstaVMError('malformed_request', 'the path is not valid percent-encoding', { cause });
  }
}

/** @throws invalid_argument */
function parseQuery(url: URL): AttachPtyQuery {
  const result = AttachPtyQuery.safeParse(Object.fromEntries(url.searchParams));
  if (result.success) return result.data;
  throw invalidFields(result.error.issues.map(({ path, message }) => ({ path: path.join('.'), message })));
}

type Grant = {
  readonly caller: Caller;
  readonly readOnly: boolean;
  allows(sandboxId: SandboxId, ptyId: string): boolean;
};

/** From a token, or a key in the header or (the contract's own way) the query. @returns undefined when it is not valid */
async function ptyGrant(services: Services, request: IncomingMessage, url: URL): Promise<Grant | undefined> {
  const token = url.searchParams.get('token');
  if (token !== null) {
    const grant = services.ptyTokens.redeem(token);
    const allows = (sandboxId: SandboxId, ptyId: string): boolean =>
      grant?.sandboxId === sandboxId && grant.ptyId === ptyId;
    return grant && { caller: grant.caller, readOnly: grant.readOnly, allows };
  }
  const key = request.headers['x-api-key'] ?? url.searchParams.get('api_key') ?? undefined;
  try {
    const caller = await authenticate(services, key, addressOf(request, services.trustedProxies));
    // Whoever may only look may look at terminals, too.
    return { caller, readOnly: caller.scope === 'read', allows: () => true };
  } catch (error) {
    if (error instanceof InstaVMError && error.code === 'unauthenticated') return undefined;
    throw error;
  }
}

/**
 * WebSockets: the handshake as HTTP, then bytes both ways, unread. Visitors come by an HTTP/1.1 upgrade or an HTTP/2 extended CONNECT (RFC 8441);
 * the service always sees an HTTP/1.1 upgrade.
 */
import { randomBytes } from 'node:crypto';
import { request as httpRequest, type IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex, Readable, Writable } from 'node:stream';
import { explained, MAX_ANSWER_HEADER_BYTES, relayAnswer, serviceTimeout, writeServiceHead } from './answer.ts';
import type { Busy } from './client-errors.ts';
import { type Incoming, isHttp2, type Outgoing, sendPage } from './exchange.ts';
import type { Forwarding } from './forward.ts';
import { collected, type Field, fieldsOf, requestFields, responseFields, type Visit } from './headers.ts';
import { errorPage } from './pages.ts';

/** An upgrade that has no body and is for WebSocket alone; every other upgrade is an ordinary request, as RFC 9110 §7.8 allows. */
export const isWebSocketUpgrade = ({ method, headers }: IncomingMessage): boolean =>
  method === 'GET' &&
  headers.upgrade?.toLowerCase() === 'websocket' &&
  headers['content-length'] === undefined &&
  headers['transfer-encoding'] === undefined;

/**
 * A response over the socket of an upgrade, for when it is refused.
 * @returns undefined: the answer to an earlier request is not there yet, and nothing may overtake it. Who did not wait for it is hung up on
 */
export function responseOver(request: IncomingMessage, socket: Duplex): ServerResponse | undefined {
  socket.on('error', () => socket.destroy());
  if ((socket as Busy)._httpMessage) {
    socket.destroy();
    return undefined;
  }
  const response = new ServerResponse(request);
  response.shouldKeepAlive = false;
  // Node writes to any stream here; its types want a socket.
  response.assignSocket(socket as never);
  response.once('finish', () => socket.end());
  return response;
}

/** The visitor's side. */
type Line = { readonly readable: Readable; readonly writable: Writable };

/**
 * Once both sides agree, only their streams are left: nothing that lives as long as a WebSocket, hours, may refer to the messages of
 * its handshake, which are half of what one costs us.
 * @param line the socket of the upgrade with what was read of it already; undefined on HTTP/2
 */
export function forwardWebSocket(
  of: Forwarding,
  line: { readonly socket: Duplex; readonly head: Buffer } | undefined,
): void {
  const { request, response, visit, pool, timeouts } = of;
  const upstream = httpRequest({
    method: 'GET',
    path: of.path,
    headers: handshake(of).flat(),
    createConnection: (options, done) => pool.createConnection(options, done),
    maxHeaderSize: MAX_ANSWER_HEADER_BYTES,
    insecureHTTPParser: false,
  });
  const exchange = line?.socket ?? response;
  const giveUp = (): void => void upstream.destroy();
  exchange.once('close', giveUp);

  const answerTimer = setTimeout(
    () => upstream.destroy(serviceTimeout('The service in the sandbox did not answer the WebSocket handshake.')),
    timeouts.answerMs,
  );
  const fail = (error: Error): void => {
    clearTimeout(answerTimer);
    sendPage(request, response, errorPage(explained(error), request.headers.accept));
  };
  upstream.once('error', fail);
  upstream.once('response', (answer) => {
    clearTimeout(answerTimer);
    try {
      relayAnswer(answer, { request, response, visit, mustClose: true, onData: () => {} });
    } catch (error) {
      fail(error as Error);
    }
  });
  upstream.once('upgrade', (answer, service, early) => {
    clearTimeout(answerTimer);
    upstream.removeListener('error', fail);
    exchange.removeListener('close', giveUp);
    let visitor: Line;
    try {
      visitor = line
        ? acceptUpgrade(answer, line, response as ServerResponse, visit)
        : acceptConnect(answer, request, response, visit);
    } catch (error) {
      service.destroy();
      fail(error as Error);
      return;
    }
    visitor.writable.write(early);
    if (line) service.write(line.head);
    splice(visitor, service, timeouts.idleMs);
  });
  upstream.end();
}

function handshake({ request, visit }: Forwarding): Field[] {
  const fields = requestFields(fieldsOf(request.rawHeaders), visit);
  if (isHttp2(request)) fields.push(['Sec-WebSocket-Key', randomBytes(16).toString('base64')]);
  return [...fields, ['Connection', 'Upgrade'], ['Upgrade', 'websocket']];
}

function acceptUpgrade(
  answer: IncomingMessage,
  { socket }: { socket: Duplex },
  response: ServerResponse,
  visit: Visit,
): Line {
  response.detachSocket(socket as never);
  const fields = responseFields(fieldsOf(answer.rawHeaders), visit).filter(([name]) => !isFraming(name));
  const lines = [...fields, ['Connection', 'Upgrade'], ['Upgrade', 'websocket']].map(
    ([name, value]) => `${name}: ${value}\r\n`,
  );
  socket.write(`HTTP/1.1 101 Switching Protocols\r\n${lines.join('')}\r\n`, 'latin1');
  return { readable: socket, writable: socket };
}

function acceptConnect(answer: IncomingMessage, request: Incoming, response: Outgoing, visit: Visit): Line {
  const fields = responseFields(fieldsOf(answer.rawHeaders), visit).filter(
    ([name]) => !isFraming(name) && name.toLowerCase() !== 'sec-websocket-accept',
  );
  writeServiceHead(response, 200, collected(fields));
  return { readable: request, writable: response };
}

const isFraming = (name: string): boolean => ['content-length', 'trailer'].includes(name.toLowerCase());

function splice(visitor: Line, service: Duplex, idleMs: number): void {
  const end = (): void => {
    clearTimeout(idle);
    visitor.readable.destroy();
    visitor.writable.destroy();
    service.destroy();
  };
  const idle = setTimeout(end, idleMs);
  for (const stream of [visitor.readable, service]) stream.on('data', () => idle.refresh());
  for (const stream of new Set([visitor.readable, visitor.writable, service])) stream.on('error', end);
  visitor.readable.pipe(service);
  service.pipe(visitor.writable);
  service.once('close', () => {
    // What it said last still has to reach the visitor, in the time that silence may last.
    if (service.readableEnded) visitor.writable.end();
    else end();
  });
  visitor.readable.once('close', end);
}

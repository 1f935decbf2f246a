/** What requests over HTTP/1.1 and HTTP/2 have in common, as the rest of the proxy sees them. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { constants, type Http2ServerRequest, type Http2ServerResponse } from 'node:http2';
import type { Page } from './pages.ts';

export type Incoming = IncomingMessage | Http2ServerRequest;
export type Outgoing = ServerResponse | Http2ServerResponse;

export const isHttp2 = (message: Incoming | Outgoing): message is Http2ServerRequest | Http2ServerResponse =>
  'stream' in message;

/** Whether a body may follow, whatever its length. */
export function hasBody(request: Incoming): boolean {
  // endAfterHeaders is documented on ServerHttp2Stream's base and missing from the type that the request has.
  if (isHttp2(request)) return !(request.stream as unknown as { endAfterHeaders: boolean }).endAfterHeaders;
  return request.headers['transfer-encoding'] !== undefined || Number(request.headers['content-length'] ?? 0) > 0;
}

/** Ends an answer so that the visitor knows that it is not whole. */
export function breakOff(response: Outgoing): void {
  if (isHttp2(response)) response.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
  else response.destroy();
}

export const isGone = (response: Outgoing): boolean =>
  isHttp2(response) ? response.stream.destroyed : response.destroyed;

/** Ends a whole answer; what the visitor may still be sending is not wanted any more (RFC 9113 §8.1). */
export function finish(request: Incoming, response: Outgoing, body?: string): void {
  if (isHttp2(response) && hasBody(request) && !request.readableEnded) {
    const { stream } = response;
    const isBare = request.method === 'HEAD' || [204, 205, 304].includes(response.statusCode);
    // Trailers, even none, are the last thing of an answer that may have a body.
    stream.once(isBare ? 'finish' : 'wantTrailers', () => setImmediate(() => stream.close(constants.NGHTTP2_NO_ERROR)));
  }
  if (body === undefined) response.end();
  else response.end(body);
}

/** What is left of the body will not be read, so nothing after it could be told apart; and who is malformed once may be meant to confuse. */
const mustClose = (request: Incoming, status: number): boolean =>
  status === 400 || hasBody(request) || request.headers.expect !== undefined;

export function sendPage(request: Incoming, response: Outgoing, page: Page): void {
  if (response.headersSent) {
    breakOff(response);
    return;
  }
  const headers: Record<string, string> = {
    ...page.headers,
    'content-length': String(Buffer.byteLength(page.body)),
    ...(!isHttp2(response) && mustClose(request, page.status) ? { connection: 'close' } : {}),
  };
  writeHead(response, page.status, headers);
  finish(request, response, request.method === 'HEAD' ? undefined : page.body);
}

/** @throws when a field is not allowed in this version of HTTP, such as two lengths; another one may be written then */
export function writeHead(response: Outgoing, status: number, headers: Record<string, string | string[]>): void {
  if (!isHttp2(response)) {
    response.writeHead(status, headers);
    return;
  }
  const { stream } = response;
  if (stream.destroyed || stream.closed) return;
  response.statusCode = status;
  // Not by the response itself, which keeps what it could not write for the next one.
  stream.respond({ ...headers, [constants.HTTP2_HEADER_STATUS]: status }, { waitForTrailers: true });
}

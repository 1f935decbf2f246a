/** Answers to what could not be read as an HTTP/1.1 request at all; the connection ends with them. */
import type { ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { InstaVMError } from '@instavm/wire';
import { errorPage } from './pages.ts';

/** Node's mark of the response that a socket is busy with. */
export type Busy = { readonly _httpMessage?: ServerResponse | null };

type ParseError = Error & { readonly code?: string; readonly rawPacket?: Buffer };

export function answerClientError(error: ParseError, socket: Duplex): void {
  const { _httpMessage: response } = socket as Busy;
  if (response?.headersSent) {
    // A whole page of ours closes the connection by itself; anything else must not look whole.
    if (!response.writableEnded) socket.destroy();
    return;
  }
  // Node also tells of failed handshakes here, where nothing could be answered.
  if (!socket.writable || !/^(HPE|ERR_HTTP)_/.test(error.code ?? '')) {
    socket.destroy();
    return;
  }
  if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT') {
    socket.end('HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n');
    return;
  }
  const { status, headers, body } = errorPage(explain(error), undefined);
  const fields = { ...headers, connection: 'close', 'content-length': String(Buffer.byteLength(body)) };
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${status} ${REASONS[status] ?? 'Error'}\r\n${lines.join('')}\r\n${body}`);
}

const REASONS: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  414: 'URI Too Long',
  431: 'Request Header Fields Too Large',
};

function explain({ code, rawPacket }: ParseError): InstaVMError {
  if (code !== 'HPE_HEADER_OVERFLOW') return new InstaVMError('malformed_request', 'This is no valid HTTP request.');
  // Still in the request line when it ran over: then the URL is what is too long.
  if (rawPacket && !rawPacket.includes('\r\n')) return new InstaVMError('url_too_long', 'The URL is too long.');
  return new InstaVMError('headers_too_large', 'The header of the request has more than 32 KiB.');
}

/**
 * The service's answer on its way to the visitor, streamed as it comes. An answer that breaks off is broken off for the visitor too: a truncated one
 * never looks whole.
 */
import type { IncomingMessage } from 'node:http';
import { InstaVMError } from '@instavm/wire';
import { breakOff, finish, type Incoming, isGone, isHttp2, type Outgoing, writeHead } from './exchange.ts';
import { collected, fieldsOf, responseFields, trailerFields, type Visit } from './headers.ts';

/** Of an answer of the service. */
export const MAX_ANSWER_HEADER_BYTES = 64 * 1024;

export type AnswerOptions = {
  readonly request: Incoming;
  readonly response: Outgoing;
  readonly visit: Visit;
  /** Whether the connection cannot be used for a further request. */
  readonly mustClose: boolean;
  readonly onData: () => void;
};

/** @throws service_failed when the header is none that can be passed on; nothing was sent then */
export function relayAnswer(answer: IncomingMessage, options: AnswerOptions): void {
  const { request, response, onData } = options;
  answer.on('error', () => breakOff(response));
  writeServiceHead(response, answer.statusCode ?? 502, headersOf(answer, options));

  let started = false;
  answer.on('data', () => {
    started = true;
    onData();
  });
  answer.pipe(response, { end: false });
  answer.once('end', () => {
    if (!answer.complete) {
      breakOff(response);
      return;
    }
    const trailers = trailerFields(answer.rawTrailers);
    if (isHttp2(response)) response.addTrailers(Object.fromEntries(trailers));
    else response.addTrailers(trailers);
    finish(request, response);
  });
  // HTTP/2 sent the header at once; HTTP/1.1 with the first bytes when they are there already, and alone when they are not (server-sent events).
  if (isHttp2(response)) return;
  setImmediate(() => {
    if (!started && !answer.readableEnded && !isGone(response)) response.flushHeaders();
  });
}

/** @throws service_failed as `relayAnswer` */
export function writeServiceHead(...[response, status, headers]: Parameters<typeof writeHead>): void {
  try {
    writeHead(response, status, headers);
  } catch (error) {
    throw new InstaVMError('service_failed', 'The service in the sandbox sent a header that is no valid HTTP.', {
      cause: error,
    });
  }
}

function headersOf(answer: IncomingMessage, { request, response, visit, mustClose }: AnswerOptions) {
  const takesTrailers =
    isHttp2(response) || (answer.headers['transfer-encoding'] !== undefined && request.httpVersion !== '1.0');
  const fields = responseFields(fieldsOf(answer.rawHeaders), visit);
  const headers = collected(fields.filter(([name]) => takesTrailers || name.toLowerCase() !== 'trailer'));
  if (mustClose && !isHttp2(response)) headers.connection = 'close';
  return headers;
}

/** What went wrong on the way to the service, as an error of the catalog. */
export function explained(error: Error & { code?: unknown }): InstaVMError {
  if (error instanceof InstaVMError) return error;
  const isInvalid = typeof error.code === 'string' && error.code.startsWith('HPE_');
  const message = isInvalid
    ? 'The service in the sandbox sent something that is no valid HTTP.'
    : 'The service in the sandbox closed the connection before it had answered.';
  return new InstaVMError('service_failed', message, { cause: error });
}

export const serviceTimeout = (message: string): InstaVMError => new InstaVMError('service_timeout', message);

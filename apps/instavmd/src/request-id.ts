/** The id that ties an answer to the log: the caller's own (`X-Request-Id`), when it can stand there, else a new one. */
import type { IncomingMessage } from 'node:http';

export const REQUEST_ID_HEADER = 'x-request-id';
/** Nothing that could be taken for another field or another line. */
const ACCEPTABLE = /^[\w.:-]{1,128}$/;

export function requestIdOf({ headers }: Pick<IncomingMessage, 'headers'>): string {
  const given = headers[REQUEST_ID_HEADER];
  return typeof given === 'string' && ACCEPTABLE.test(given) ? given : crypto.randomUUID();
}

/** What requests look like in the log: never a query string (it may carry a key), never a header. */
import type { FastifyRequest } from 'fastify';

export const requestSerializer = (request: FastifyRequest) => ({
  method: request.method,
  path: request.url?.split('?', 1)[0],
  remoteAddress: request.ip,
});

/** The life of a request as a signal. */
import type { FastifyReply } from 'fastify';

/** Aborts when the answer is sent or the client is gone, whichever comes first: nothing in the guest outlives who asked for it. */
export function untilClosed(reply: FastifyReply): AbortSignal {
  const closed = new AbortController();
  if (reply.raw.destroyed) closed.abort();
  else reply.raw.once('close', () => closed.abort());
  return closed.signal;
}

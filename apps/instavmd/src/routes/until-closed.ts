/** The life of a request: over when its answer is sent or its client is gone, whichever comes first. */
import type { FastifyReply } from 'fastify';

/** Does it then; at once when it is over already, as for a client that went while the database was busy. */
export function whenClosed(reply: FastifyReply, act: () => void): void {
  if (reply.raw.destroyed) act();
  else reply.raw.once('close', act);
}

/** As a signal: nothing in the guest outlives who asked for it. */
export function untilClosed(reply: FastifyReply): AbortSignal {
  const closed = new AbortController();
  whenClosed(reply, () => closed.abort());
  return closed.signal;
}

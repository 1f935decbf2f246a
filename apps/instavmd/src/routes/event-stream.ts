/** Server-sent events as the body of an answer. */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import type { FastifyReply } from 'fastify';

/** Clients and proxies give up on a connection that stays silent for minutes; a comment line is no event. */
const COMMENT_INTERVAL_MS = 15_000;

export type EventStream = {
  readonly body: PassThrough;
  /** Nothing reaches the client before the first line, not even that the request was accepted. */
  comment(): void;
  /** Waits while the client does not read. @throws AbortError when `signal` is aborted meanwhile */
  send(event: object): Promise<void>;
};

/** The caller answers with `body`. @param comment what the lines between events say */
export function eventStream(reply: FastifyReply, comment: string, signal: AbortSignal): EventStream {
  const body = new PassThrough();
  const writeComment = (): void => {
    if (!body.writableEnded && body.writableLength === 0) body.write(`: ${comment}\n\n`);
  };
  const comments = setInterval(writeComment, COMMENT_INTERVAL_MS);
  body.once('close', () => clearInterval(comments));
  reply.headers({ 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
  const send = async (event: object): Promise<void> => {
    if (!body.write(`data: ${JSON.stringify(event)}\n\n`)) await once(body, 'drain', { signal });
  };
  return { body, send, comment: writeComment };
}

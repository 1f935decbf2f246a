/** Changes below a directory as server-sent events. */
import { once } from 'node:events';
import { PassThrough } from 'node:stream';
import { type WatchEvent, WatchEvent_Kind as WatchKind } from '@instavm/agent-client';
import { WatchQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { guestError } from '../guest/errors.ts';
import { heldGuest } from '../guest/held-guest.ts';
import { firstOf, targetOf } from '../guest/transfer.ts';
import { untilClosed } from './until-closed.ts';
import { ownerOf } from './views.ts';

/** Clients and proxies give up on a connection that stays silent for minutes; a comment line is no event. */
const COMMENT_INTERVAL_MS = 15_000;

const KIND_WORDS: Readonly<Record<WatchKind, string>> = {
  [WatchKind.UNSPECIFIED]: 'unknown',
  [WatchKind.READY]: 'ready',
  [WatchKind.CREATED]: 'created',
  [WatchKind.MODIFIED]: 'modified',
  [WatchKind.REMOVED]: 'removed',
  [WatchKind.MOVED]: 'moved',
  [WatchKind.OVERFLOW]: 'overflow',
};

export const watchRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const watched = {
      summary: 'Changes below a directory, as server-sent events',
      produces: ['text/event-stream'],
      params: z.object({ id: z.string() }),
      querystring: WatchQuery,
    };
    app.get('/v2/sandboxes/:id/files/watch', { schema: watched }, async ({ account, params, query, log }, reply) => {
      const guest = await heldGuest(await ownerOf(services, account.id, params.id), reply);
      const signal = untilClosed(reply);
      const request = { target: targetOf(query), recursive: query.recursive ?? false };
      const events = guest.agent.files.watch(request, { signal })[Symbol.asyncIterator]();
      const first = await firstOf(events);
      const out = new PassThrough();
      out.write(eventText(first));
      const comments = setInterval(() => {
        if (out.writableLength === 0) out.write(': watching\n\n');
      }, COMMENT_INTERVAL_MS);
      out.once('close', () => clearInterval(comments));
      forward(events, out).catch((error: unknown) => {
        // The stream has begun, so its end is all that the client can be told.
        log.debug({ err: guestError(error) }, 'watch ended');
        out.destroy();
      });
      reply.headers({ 'content-type': 'text/event-stream', 'cache-control': 'no-store' });
      return reply.send(out);
    });
  };

async function forward(events: AsyncIterator<WatchEvent>, out: PassThrough): Promise<void> {
  for (let next = await events.next(); !next.done; next = await events.next()) {
    if (!out.write(eventText(next.value))) await once(out, 'drain');
  }
  out.end();
}

function eventText(event: WatchEvent): string {
  const bytes = Buffer.from(event.path);
  const path = bytes.toString('utf8');
  const exact = Buffer.from(path, 'utf8').equals(bytes) ? {} : { path_base64: bytes.toString('base64') };
  return `data: ${JSON.stringify({ kind: KIND_WORDS[event.kind] ?? 'unknown', path, ...exact })}\n\n`;
}

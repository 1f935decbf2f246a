/** Changes below a directory as server-sent events. */
import { type WatchEvent, WatchEvent_Kind as WatchKind } from '@instavm/agent-client';
import { WatchQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { READ } from '../auth.ts';
import { guestError } from '../guest/errors.ts';
import { heldGuest } from '../guest/held-guest.ts';
import { firstOf, targetOf } from '../guest/transfer.ts';
import { type EventStream, eventStream } from './event-stream.ts';
import { untilClosed } from './until-closed.ts';
import { ownerOf } from './views.ts';

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
    app.get(
      '/v2/sandboxes/:id/files/watch',
      { ...READ, schema: watched },
      async ({ caller, params, query, log }, reply) => {
        const guest = await heldGuest(await ownerOf(services, caller, params.id), reply);
        const signal = untilClosed(reply);
        const request = { target: targetOf(query), recursive: query.recursive ?? false };
        const events = guest.agent.files.watch(request, { signal })[Symbol.asyncIterator]();
        const first = await firstOf(events);
        const stream = eventStream(reply, 'watching', signal);
        await stream.send(eventView(first));
        forward(events, stream).catch((error: unknown) => {
          // The stream has begun, so its end is all that the client can be told.
          log.debug({ err: guestError(error) }, 'watch ended');
          stream.body.destroy();
        });
        return reply.send(stream.body);
      },
    );
  };

async function forward(events: AsyncIterator<WatchEvent>, { body, send }: EventStream): Promise<void> {
  for (let next = await events.next(); !next.done; next = await events.next()) await send(eventView(next.value));
  body.end();
}

function eventView(event: WatchEvent): object {
  const bytes = Buffer.from(event.path);
  const path = bytes.toString('utf8');
  const exact = Buffer.from(path, 'utf8').equals(bytes) ? {} : { path_base64: bytes.toString('base64') };
  return { kind: KIND_WORDS[event.kind] ?? 'unknown', path, ...exact };
}

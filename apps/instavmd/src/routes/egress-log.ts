/** What a sandbox tried to reach: as a page, or followed as server-sent events. */
import type { EgressFollower, EgressRecord, SandboxId, StoredEgressEntry } from '@instavm/core';
import { EgressLogQuery, EgressLogResponse } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { READ } from '../auth.ts';
import { type EventStream, eventStream } from './event-stream.ts';
import { untilClosed } from './until-closed.ts';
import { ownerOf } from './views.ts';

const FOLLOWED_PAGE = 500;

export const egressLogRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const listed = {
      summary: 'What the sandbox tried to reach, newest last; with follow=true as server-sent events',
      params: z.object({ id: z.string() }),
      querystring: EgressLogQuery,
      produces: ['application/json', 'text/event-stream'],
      response: { 200: EgressLogResponse },
    };
    app.get(
      '/v2/sandboxes/:id/egress/log',
      { ...READ, schema: listed },
      async ({ caller, params, query, log }, reply) => {
        const { id } = (await ownerOf(services, caller, params.id)).record;
        if (!query.follow) {
          const { after: afterId, before: beforeId, ...rest } = query;
          const { entries } = await services.egressLog.list(id, { afterId, beforeId, ...rest });
          return { entries: entries.map(entryView) };
        }
        const signal = untilClosed(reply);
        const follower = services.egressJournal.follow(id);
        if (signal.aborted) follower.close();
        signal.addEventListener('abort', () => follower.close());
        const stream = eventStream(reply, 'following', signal);
        stream.comment();
        follow(services, id, query, follower, stream)
          .catch((error: unknown) => {
            // The stream has begun, so its end is all that the client can be told.
            if (!signal.aborted) log.warn({ err: error }, 'following an egress log ended');
            stream.body.destroy();
          })
          .finally(() => follower.close());
        // The schema is that of a page; a stream is sent as it is.
        return reply.send(stream.body as never);
      },
    );
  };

/** Rows come from the log at the pace of the client, so a slow one loses only what the log forgets meanwhile, and is told so. */
async function follow(
  { egressLog }: Services,
  id: SandboxId,
  { after, verdict, host }: EgressLogQuery,
  follower: EgressFollower,
  { body, send }: EventStream,
): Promise<void> {
  const { newestId } = await egressLog.list(id, { limit: 1 });
  let afterId = Math.min(after ?? newestId, newestId);
  do {
    const { opened, missed } = follower.takeOpened();
    const wanted = opened.filter((record) => isWanted(record, verdict, host));
    for (const record of wanted) await send(entryView({ ...record, id: null, repeated: 1 }));
    if (missed > 0) await send({ kind: 'gap', missed });
    for (let isMore = true; isMore; ) {
      const page = await egressLog.list(id, { afterId, limit: FOLLOWED_PAGE, verdict, host });
      const forgotten = page.oldestId - 1 - afterId;
      if (forgotten > 0) await send({ kind: 'gap', missed: forgotten });
      for (const entry of page.entries) await send(entryView(entry));
      isMore = page.entries.length === FOLLOWED_PAGE;
      const lastId = page.entries.at(-1)?.id ?? afterId;
      // Rows that were not asked for need not be looked at again.
      afterId = isMore ? lastId : Math.max(lastId, page.newestId);
    }
  } while (await follower.news());
  body.end();
}

function isWanted(record: EgressRecord, verdict: EgressLogQuery['verdict'], host: string | undefined): boolean {
  if (verdict !== undefined && record.allowed !== (verdict === 'allowed')) return false;
  return host === undefined || record.host === host || record.host.endsWith(`.${host}`);
}

const entryView = (entry: Omit<StoredEgressEntry, 'id'> & { readonly id: number | null }) => ({
  id: entry.id,
  at: entry.at.toISOString(),
  kind: entry.kind,
  host: entry.host,
  port: entry.port,
  address: entry.address,
  allowed: entry.allowed,
  rule: entry.rule,
  outcome: entry.outcome,
  reason: entry.reason,
  bytes_sent: entry.bytesSent,
  bytes_received: entry.bytesReceived,
  duration_ms: entry.durationMs,
  repeated: entry.repeated,
});

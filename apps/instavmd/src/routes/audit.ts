/** What was done in an account (contract §13.4), with server-sent events as our addition. */
import { type AuditFilter, parseSandboxId, type StoredAuditEvent } from '@instavm/core';
import { AUDIT_CATALOG, AuditCatalog, AuditEvent, AuditEvents, AuditQuery, InstaVMError } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { type Caller, READ, requireAllSandboxes } from '../auth.ts';
import { type EventStream, eventStream } from './event-stream.ts';
import { untilClosed } from './until-closed.ts';
import { ownerOf, ownerOfVm } from './views.ts';

const FOLLOWED_PAGE = 200;
const CATALOG = Object.fromEntries(Object.entries(AUDIT_CATALOG).map(([group, types]) => [group, Object.keys(types)]));

export const auditRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const catalog = { summary: 'Every type of event, by group', response: { 200: AuditCatalog } };
    app.get('/v1/audit/catalog', { ...READ, schema: catalog }, async () => ({ catalog: CATALOG }));

    const listed = {
      summary: 'What was done in the account, newest first; with follow=true as server-sent events, oldest first',
      querystring: AuditQuery,
      produces: ['application/json', 'text/event-stream'],
      response: { 200: AuditEvents },
    };
    app.get('/v1/audit/events', { ...READ, schema: listed }, async ({ caller, query, log }, reply) => {
      await requireSight(services, caller, query);
      const { trail, news } = services.audit;
      const { id: accountId } = caller.account;
      const filter = filterOf(query);
      if (!query.follow) {
        const { limit, cursor } = query;
        const beforeId = cursor === undefined ? undefined : numberOf(cursor);
        // One more tells whether there is another page.
        const events = await trail.list(accountId, filter, { limit: limit + 1, beforeId });
        const items = events.slice(0, limit).map(eventView);
        return { items, next_cursor: events.length > limit ? (items.at(-1)?.id ?? null) : null };
      }
      const signal = untilClosed(reply);
      const next = news.follow(accountId, signal);
      const newest = await trail.newestId(accountId);
      const after = query.after === undefined ? newest : Math.min(numberOf(query.after), newest);
      const stream = eventStream(reply, 'following', signal);
      stream.comment();
      const read = (afterId: number) => trail.list(accountId, filter, { limit: FOLLOWED_PAGE, afterId });
      follow(read, after, next, stream).catch((error: unknown) => {
        // The stream has begun, so its end is all that the client can be told.
        if (!signal.aborted) log.warn({ err: error }, 'following audit events ended');
        stream.body.destroy();
      });
      // The schema is that of a page; a stream is sent as it is.
      return reply.send(stream.body as never);
    });

    const one = { params: z.object({ event: z.string() }), response: { 200: AuditEvent } };
    app.get('/v1/audit/events/:event', { ...READ, schema: one }, async ({ caller, params }) => {
      const event = /^evt_\d{1,15}$/.test(params.event)
        ? await services.audit.trail.find(caller.account.id, numberOf(params.event))
        : undefined;
      const none = new InstaVMError('event_not_found', `there is no event ${params.event.slice(0, 80)}`);
      if (event === undefined) throw none;
      if (caller.sandboxMetadata === null) return eventView(event);
      if (event.sandboxId === null) throw none;
      await ownerOf(services, caller, event.sandboxId).catch(() => {
        throw none;
      });
      return eventView(event);
    });
  };

/** A key for some sandboxes is told of one of them at a time. @throws permission_denied, sandbox_not_found, incarnation_not_found */
async function requireSight(services: Services, caller: Caller, { session_id, vm_id }: AuditQuery): Promise<void> {
  if (caller.sandboxMetadata === null) return;
  if (session_id !== undefined) await ownerOf(services, caller, session_id);
  else if (vm_id !== undefined) await ownerOfVm(services, caller, vm_id);
  else requireAllSandboxes(caller);
}

const filterOf = ({ event_group, event_type, status, user_id, vm_id, session_id }: AuditQuery): AuditFilter => ({
  group: event_group,
  type: event_type,
  status,
  actorAccountId: user_id,
  incarnationId: vm_id,
  sandboxId: session_id && (parseSandboxId(session_id) ?? session_id),
});

/** Events come at the pace of the client; the trail keeps them meanwhile. */
async function follow(
  read: (afterId: number) => Promise<StoredAuditEvent[]>,
  after: number,
  next: () => Promise<boolean>,
  { body, send }: EventStream,
): Promise<void> {
  let afterId = after;
  do {
    for (let page = await read(afterId); page.length > 0; page = await read(afterId)) {
      for (const event of page) await send(eventView(event));
      afterId = page.at(-1)?.id ?? afterId;
    }
  } while (await next());
  body.end();
}

const numberOf = (id: string): number => Number(id.slice('evt_'.length));

const eventView = ({ id, at, type, status, actor, resource, ...event }: StoredAuditEvent): AuditEvent => ({
  id: `evt_${id}`,
  created_at: at.toISOString(),
  event_group: type.slice(0, type.indexOf('.')),
  event_type: type,
  status,
  actor_type: actor.type,
  actor_id: actor.id,
  actor_name: actor.name,
  user_id: actor.accountId,
  resource_type: resource?.type ?? null,
  resource_id: resource?.id ?? null,
  session_id: event.sandboxId,
  vm_id: event.incarnationId,
  request_id: actor.requestId,
  source_ip: actor.address,
  event_payload: { ...event.details },
  error_message: event.error,
});

/** The audit trail of the account: what was done, by whom, to what. */
import { events as serverSentEvents } from './event-stream.ts';
import type { HttpClient } from './http.ts';

export type AuditFilter = {
  /** What stands before the dot of a type: `sandbox`, `key`, … */
  readonly group?: string | undefined;
  readonly type?: string | undefined;
  readonly status?: AuditStatus | undefined;
  /** The account of whoever acted. */
  readonly userId?: string | undefined;
  readonly sandboxId?: string | undefined;
  readonly incarnationId?: string | undefined;
};

/** More may come. */
export type AuditStatus = 'success' | 'failure' | 'error' | 'denied' | 'pending' | 'started';

export type AuditEvent = {
  /** `evt_` and a number that grows by one with each event of the account. */
  readonly id: string;
  readonly at: Date;
  readonly group: string;
  readonly type: string;
  readonly status: AuditStatus;
  readonly actor: {
    /** `api_key`, `user`, `visitor`, `sandbox`, `system` or `anonymous`. */
    readonly type: string;
    readonly id: string | null;
    /** For people: how a key begins, an e-mail address. */
    readonly name: string | null;
    readonly userId: string | null;
  };
  readonly resource: { readonly type: string; readonly id: string } | null;
  readonly sandboxId: string | null;
  readonly incarnationId: string | null;
  readonly requestId: string | null;
  /** Where the request came from. */
  readonly sourceIp: string | null;
  readonly details: Readonly<Record<string, unknown>>;
  readonly error: string | null;
};

export type AuditPage = {
  /** Newest first. */
  readonly events: readonly AuditEvent[];
  /** Of the next page; null when this is the last. */
  readonly nextCursor: string | null;
};

const EVENTS = '/v1/audit/events';
/** As many as the server gives at once. */
const MOST = 200;

export class Audit {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /** Every type of event, by group. */
  async catalog(): Promise<Readonly<Record<string, readonly string[]>>> {
    const request = { method: 'GET', path: '/v1/audit/catalog' } as const;
    return (await this.#http.json<{ catalog: Record<string, string[]> }>(request)).catalog;
  }

  /** All that are kept, newest first, in pages that are fetched as they are needed. */
  async *events(filter: AuditFilter = {}): AsyncGenerator<AuditEvent> {
    for (let cursor: string | null | undefined; cursor !== null; ) {
      const page: AuditPage = await this.page(filter, { cursor, limit: MOST });
      yield* page.events;
      cursor = page.nextCursor;
    }
  }

  /** @param options.limit 1 to 200; default 50 */
  async page(
    filter: AuditFilter = {},
    options: { readonly cursor?: string | undefined; readonly limit?: number | undefined } = {},
  ): Promise<AuditPage> {
    const query = { ...wireFilter(filter), ...options };
    const { items, next_cursor } = await this.#http.json<WirePage>({ method: 'GET', path: EVENTS, query });
    return { events: items.map(eventOf), nextCursor: next_cursor };
  }

  /** @throws InstaVMError `event_not_found` */
  async get(id: string): Promise<AuditEvent> {
    return eventOf(await this.#http.json<WireEvent>({ method: 'GET', path: `${EVENTS}/${encodeURIComponent(id)}` }));
  }

  /** Events as they come, oldest first, until the iteration is ended. @param after the id of the last one that is known; now when left out */
  async *follow(filter: AuditFilter = {}, after?: string): AsyncGenerator<AuditEvent> {
    const query = { ...wireFilter(filter), follow: true, ...(after !== undefined && { after }) };
    const body = await this.#http.stream({ method: 'GET', path: EVENTS, query });
    for await (const event of serverSentEvents<WireEvent>(body)) yield eventOf(event);
  }
}

type WireEvent = {
  id: string;
  created_at: string;
  event_group: string;
  event_type: string;
  status: AuditStatus;
  actor_type: string;
  actor_id: string | null;
  actor_name: string | null;
  user_id: string | null;
  resource_type: string | null;
  resource_id: string | null;
  session_id: string | null;
  vm_id: string | null;
  request_id: string | null;
  source_ip: string | null;
  event_payload: Record<string, unknown>;
  error_message: string | null;
};
type WirePage = { items: WireEvent[]; next_cursor: string | null };

const wireFilter = ({ group, type, status, userId, sandboxId, incarnationId }: AuditFilter) => ({
  event_group: group,
  event_type: type,
  status,
  user_id: userId,
  session_id: sandboxId,
  vm_id: incarnationId,
});

const eventOf = (wire: WireEvent): AuditEvent => ({
  id: wire.id,
  at: new Date(wire.created_at),
  group: wire.event_group,
  type: wire.event_type,
  status: wire.status,
  actor: { type: wire.actor_type, id: wire.actor_id, name: wire.actor_name, userId: wire.user_id },
  resource:
    wire.resource_type === null || wire.resource_id === null
      ? null
      : { type: wire.resource_type, id: wire.resource_id },
  sandboxId: wire.session_id,
  incarnationId: wire.vm_id,
  requestId: wire.request_id,
  sourceIp: wire.source_ip,
  details: wire.event_payload,
  error: wire.error_message,
});

/** What was done in the account: pages of the past, and what is done now. */
import { useQuery } from '@tanstack/react-query';
import { useCallback, useRef, useState } from 'react';
import { useFollowing } from './following.ts';
import { request, events as serverSentEvents } from './http.ts';
import type { AuditEvent, AuditEvents } from './types.ts';

export type EventFilter = {
  readonly event_group?: string | undefined;
  readonly status?: string | undefined;
  readonly session_id?: string | undefined;
};

const PATH = '/v1/audit/events';
const PAGE = 50;

export const useEventGroups = () =>
  useQuery({
    queryKey: ['event-catalog'],
    queryFn: async () =>
      Object.keys((await request<{ catalog: Record<string, string[]> }>('GET', '/v1/audit/catalog')).catalog),
    staleTime: Number.POSITIVE_INFINITY,
  });

type Listed = { readonly events: readonly AuditEvent[]; readonly cursor: string | null };

/** Newest first. Another filter needs another instance of the component that calls this. */
export function useEvents({ event_group, status, session_id }: EventFilter) {
  const [listed, setListed] = useState<Listed>();
  const [error, setError] = useState<Error>();
  const newest = useRef<string>(undefined);
  const page = useCallback(
    (signal?: AbortSignal, cursor?: string) => {
      const query = { event_group, status, session_id, cursor, limit: PAGE };
      return request<AuditEvents>('GET', PATH, { query, ...(signal && { signal }) });
    },
    [event_group, status, session_id],
  );
  const follow = useCallback(
    async (signal: AbortSignal, live: () => void): Promise<void> => {
      if (newest.current === undefined) {
        const first = await page(signal).catch((cause: Error) => {
          if (!signal.aborted) setError(cause);
          throw cause;
        });
        setError(undefined);
        setListed({ events: first.items, cursor: first.next_cursor });
        newest.current = first.items[0]?.id ?? 'evt_0';
      }
      live();
      const query = { event_group, status, session_id, follow: true, after: newest.current };
      for await (const event of serverSentEvents<AuditEvent>(PATH, query, signal)) {
        newest.current = event.id;
        setListed((before) => ({ cursor: before?.cursor ?? null, events: [event, ...(before?.events ?? [])] }));
      }
    },
    [event_group, status, session_id, page],
  );
  const isLive = useFollowing(follow);
  const older = async (): Promise<void> => {
    const cursor = listed?.cursor;
    if (!cursor) return;
    try {
      const next = await page(undefined, cursor);
      setListed((before) => ({ cursor: next.next_cursor, events: [...(before?.events ?? []), ...next.items] }));
    } catch (cause) {
      setError(cause as Error);
    }
  };
  return { events: listed?.events, hasOlder: listed?.cursor != null, older, isLive, error };
}

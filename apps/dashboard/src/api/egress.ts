/** What a sandbox may reach, and what it tried to. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useCallback, useRef, useState } from 'react';
import { useFollowing } from './following.ts';
import { events, request } from './http.ts';
import { sandboxPath } from './sandboxes.ts';
import type { EgressEntry, EgressPolicy, EgressPolicyInForce, EgressVerdict } from './types.ts';

export const usePolicy = (id: string) =>
  useQuery({
    queryKey: ['egress', id],
    queryFn: () => request<EgressPolicyInForce>('GET', sandboxPath(id, '/egress')),
  });

export function useSetPolicy(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (json: EgressPolicy) => request<EgressPolicyInForce>('PUT', sandboxPath(id, '/egress'), { json }),
    onSuccess: (policy) => client.setQueryData(['egress', id], policy),
  });
}

export const useDestinationTest = (id: string) =>
  useMutation({
    mutationFn: (destination: string) =>
      request<EgressVerdict>('POST', sandboxPath(id, '/egress/test'), { json: { destination } }),
  });

type Gap = { readonly kind: 'gap'; readonly missed: number };
export type LogRow = { readonly key: number; readonly entry: EgressEntry | Gap };

const KEPT = 200;

/** Newest first; goes on where it was when the connection is lost. */
export function useEgressLog(id: string): { rows: readonly LogRow[]; isLive: boolean } {
  const [rows, setRows] = useState<readonly LogRow[]>([]);
  const place = useRef({ count: 0, after: 0 });
  const follow = useCallback(
    async (signal: AbortSignal, live: () => void): Promise<void> => {
      const add = (entries: readonly (EgressEntry | Gap)[]): void => {
        const fresh = entries.map((entry) => {
          place.current.count += 1;
          return { key: place.current.count, entry };
        });
        setRows((before) => [...fresh.reverse(), ...before].slice(0, KEPT));
      };
      const path = sandboxPath(id, '/egress/log');
      const { after } = place.current;
      const { entries } = await request<{ entries: EgressEntry[] }>('GET', path, {
        query: { limit: KEPT, ...(after === 0 ? {} : { after }) },
        signal,
      });
      add(entries);
      place.current.after = entries.at(-1)?.id ?? after;
      live();
      const query = { follow: true, after: place.current.after };
      for await (const entry of events<EgressEntry | Gap>(path, query, signal)) {
        // A connection that is just beginning has no id; it comes again when it has ended.
        if (entry.kind !== 'gap' && entry.id === null) continue;
        if (entry.kind !== 'gap') place.current.after = entry.id ?? place.current.after;
        add([entry]);
      }
    },
    [id],
  );
  return { rows, isLive: useFollowing(follow) };
}

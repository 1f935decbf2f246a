/** What a sandbox may reach, and what it tried to. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
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
const RETRY_MS = 2_000;

/** Newest first; goes on where it was when the connection is lost. */
export function useEgressLog(id: string): { rows: readonly LogRow[]; isLive: boolean } {
  const [rows, setRows] = useState<readonly LogRow[]>([]);
  const [isLive, setLive] = useState(false);
  useEffect(() => {
    const stop = new AbortController();
    let count = 0;
    let after = 0;
    const add = (entries: readonly (EgressEntry | Gap)[]): void => {
      const fresh = entries.map((entry) => {
        count += 1;
        return { key: count, entry };
      });
      setRows((before) => [...fresh.reverse(), ...before].slice(0, KEPT));
    };
    const follow = async (): Promise<void> => {
      const path = sandboxPath(id, '/egress/log');
      const { entries } = await request<{ entries: EgressEntry[] }>('GET', path, {
        query: { limit: KEPT, ...(after === 0 ? {} : { after }) },
        signal: stop.signal,
      });
      add(entries);
      after = entries.at(-1)?.id ?? after;
      setLive(true);
      for await (const entry of events<EgressEntry | Gap>(path, { follow: true, after }, stop.signal)) {
        // A connection that is just beginning has no id; it comes again when it has ended.
        if (entry.kind !== 'gap' && entry.id === null) continue;
        if (entry.kind !== 'gap') after = entry.id ?? after;
        add([entry]);
      }
    };
    const run = async (): Promise<void> => {
      while (!stop.signal.aborted) {
        await follow().catch(() => {});
        setLive(false);
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
      }
    };
    void run();
    return () => stop.abort();
  }, [id]);
  return { rows, isLive };
}

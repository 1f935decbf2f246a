/** Saved states that any number of sandboxes may begin in. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { request } from './http.ts';
import { sandboxPath } from './sandboxes.ts';
import type { Snapshot } from './types.ts';

const KEY = ['snapshots'];

export const useSnapshots = () =>
  useQuery({
    queryKey: KEY,
    queryFn: async () => (await request<{ snapshots: Snapshot[] }>('GET', '/v2/snapshots')).snapshots,
    refetchInterval: 5_000,
  });

export function useTakeSnapshot(sandboxId: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (name: string) =>
      request<Snapshot>('POST', sandboxPath(sandboxId, '/snapshots'), {
        json: { wait: false, ...(name === '' ? {} : { name }) },
      }),
    onSettled: () => client.invalidateQueries({ queryKey: KEY }),
  });
}

export function useDeleteSnapshot() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => request<Snapshot>('DELETE', `/v2/snapshots/${encodeURIComponent(id)}`),
    onSettled: () => client.invalidateQueries({ queryKey: KEY }),
  });
}

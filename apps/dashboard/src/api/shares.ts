/** Ports with an address. */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { request } from './http.ts';
import type { Share } from './types.ts';

const key = (sandboxId: string) => ['shares', sandboxId];

export const useShares = (sandboxId: string) =>
  useQuery({
    queryKey: key(sandboxId),
    queryFn: async () =>
      (await request<{ shares: Share[] }>('GET', '/v1/shares', { query: { session_id: sandboxId } })).shares,
    refetchInterval: 5_000,
  });

export type ShareChange =
  | { readonly kind: 'create'; readonly port: number; readonly isPublic: boolean }
  | { readonly kind: 'publish'; readonly shareId: string; readonly isPublic: boolean }
  | { readonly kind: 'revoke'; readonly shareId: string };

export function useShareChange(sandboxId: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (change: ShareChange) => {
      if (change.kind === 'create') {
        const json = { port: change.port, is_public: change.isPublic, session_id: sandboxId };
        return request('POST', '/v1/shares', { json });
      }
      const json = change.kind === 'revoke' ? { revoke: true } : { is_public: change.isPublic };
      return request('PATCH', `/v1/shares/${encodeURIComponent(change.shareId)}`, { json });
    },
    onSettled: () => client.invalidateQueries({ queryKey: key(sandboxId) }),
  });
}

/** A link that opens a private share for an hour. */
export const shareLink = async (shareId: string): Promise<string> =>
  (await request<{ url: string }>('POST', `/v1/shares/${encodeURIComponent(shareId)}/token`, { json: {} })).url;

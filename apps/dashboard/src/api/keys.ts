/** API keys of the account (contract §12). */
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { request } from './http.ts';
import type { ApiKey, CreateKey, NewKey } from './types.ts';

export type { ApiKey, NewKey };
export type KeyScope = ApiKey['scope'];

const KEY = ['keys'];
const path = (id: ApiKey['id'], rest = ''): string => `/v1/api-keys/${encodeURIComponent(id)}${rest}`;

export const useKeys = () =>
  useQuery({ queryKey: KEY, queryFn: () => request<ApiKey[]>('GET', '/v1/api-keys/'), refetchInterval: 10_000 });

function useKeyChange<Wanted, Answer>(change: (wanted: Wanted) => Promise<Answer>) {
  const client = useQueryClient();
  return useMutation({ mutationFn: change, onSettled: () => client.invalidateQueries({ queryKey: KEY }) });
}

/** The quickstart shows it while the page is open; nothing keeps it. */
let justCreated: string | undefined;
export const keyJustCreated = (): string | undefined => justCreated;

export const useCreateKey = () =>
  useKeyChange(async (json: CreateKey) => {
    const key = await request<NewKey>('POST', '/v1/api-keys/', { json });
    justCreated = key.api_key;
    return key;
  });

export const useRotateKey = () =>
  useKeyChange(async ({ id, graceSeconds }: { id: ApiKey['id']; graceSeconds: number }) => {
    const json = { grace_seconds: graceSeconds };
    const key = await request<NewKey>('POST', path(id, '/rotate'), { json });
    justCreated = key.api_key;
    return key;
  });

export const useRevokeKey = () => useKeyChange((id: ApiKey['id']) => request('DELETE', path(id)));

/** Who is signed in, in this browser. */
import { type QueryClient, useQuery, useQueryClient } from '@tanstack/react-query';
import { useMemo } from 'react';
import { request } from './http.ts';
import type { SignInState } from './types.ts';

const SESSION = {
  queryKey: ['session'],
  queryFn: () => request<SignInState>('GET', '/api/auth/session'),
  staleTime: 60_000,
};

export const useSession = () => useQuery(SESSION);

type Entrance = 'sign-in' | 'sign-up' | 'link';

/** What the page does to change who is signed in. Everything that was known of another account is forgotten. */
export function useEntrance() {
  const client = useQueryClient();
  return useMemo(() => entranceOf(client), [client]);
}

function entranceOf(client: QueryClient) {
  const forget = async (): Promise<void> => {
    client.clear();
    await client.fetchQuery(SESSION);
  };
  return {
    async enter(how: Entrance, json: unknown): Promise<void> {
      await request('POST', `/api/auth/${how}`, { json });
      await forget();
    },
    async leave(): Promise<void> {
      await request('POST', '/api/auth/sign-out');
      // A new page: nothing of the account stays in memory.
      location.assign('/dashboard/sign-in');
    },
  };
}

/** Who is signed in, in this browser. */
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { request } from './http.ts';
import type { Account, SignInState } from './types.ts';

const KEY = ['session'];

export const useSession = () =>
  useQuery({ queryKey: KEY, queryFn: () => request<SignInState>('GET', '/api/auth/session'), staleTime: 60_000 });

type Entrance = 'sign-in' | 'sign-up' | 'link';

/** What the page does to change who is signed in. Everything that was known of another account is forgotten. */
export function useEntrance() {
  const client = useQueryClient();
  const forget = async (): Promise<void> => {
    client.clear();
    await client.invalidateQueries({ queryKey: KEY });
  };
  return {
    async enter(how: Entrance, json: unknown): Promise<Account> {
      const { account } = await request<{ account: Account }>('POST', `/api/auth/${how}`, { json });
      await forget();
      return account;
    },
    async leave(): Promise<void> {
      await request('POST', '/api/auth/sign-out');
      await forget();
    },
  };
}

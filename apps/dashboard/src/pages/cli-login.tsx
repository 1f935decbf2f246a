/** Asks whether a command line may have a key of this account (contract §12.1). */
import { useMutation, useQuery } from '@tanstack/react-query';
import { useSearch } from 'wouter';
import { request } from '../api/http.ts';
import { useSession } from '../api/session.ts';
import type { CliPairing } from '../api/types.ts';
import { Button } from '../components/button.tsx';
import { Failure, Loading } from '../components/notes.tsx';
import { Entrance } from './entrance.tsx';

export function CliLoginPage() {
  const id = new URLSearchParams(useSearch()).get('pairing') ?? '';
  const path = `/api/cli-auth/pairings/${encodeURIComponent(id)}`;
  const { account } = useSession().data ?? {};
  const pairing = useQuery({ queryKey: ['pairing', id], queryFn: () => request<CliPairing>('GET', path) });
  const answer = useMutation({
    mutationFn: (approve: boolean) => request<{ redirect_url: string }>('POST', path, { json: { approve } }),
    onSuccess: ({ redirect_url }) => location.replace(redirect_url),
  });
  if (pairing.isPending) return <Loading />;
  if (pairing.isError)
    return (
      <Entrance title="Log in a command line">
        <Failure error={pairing.error} />
      </Entrance>
    );
  return (
    <Entrance title="Log in a command line">
      <p>
        The InstaVM command line on <strong className="host">{pairing.data.hostname}</strong> asks for an API key of{' '}
        <strong>{account?.email}</strong>. It can then do everything that you can.
      </p>
      <p className="muted">Go on only if you have just run the login command there yourself.</p>
      {answer.isError && <Failure error={answer.error} />}
      <div className="actions">
        <Button kind="primary" isBusy={answer.isPending || answer.isSuccess} onClick={() => answer.mutate(true)}>
          Give it a key
        </Button>
        <Button isBusy={answer.isPending || answer.isSuccess} onClick={() => answer.mutate(false)}>
          Refuse
        </Button>
      </div>
    </Entrance>
  );
}

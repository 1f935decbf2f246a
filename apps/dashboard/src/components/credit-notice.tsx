/** Says on every page that nothing runs, when that is why. */
import { Link } from 'wouter';
import { useSession } from '../api/session.ts';
import { useSummary } from '../api/usage.ts';

export function CreditNotice() {
  const { data } = useSummary();
  const { account } = useSession().data ?? {};
  if (!data?.enforced || data.dollars.remaining > 0) return null;
  return (
    <div className="note warning" role="status">
      <p>
        <strong>The credit is used up.</strong> Whatever runs is suspended, nothing of it is lost, and nothing new
        begins.{' '}
        {account?.is_administrator ? (
          <>
            Add some with <code>npx instavm credit add 25</code>.
          </>
        ) : (
          'The administrator of this server can add some.'
        )}{' '}
        <Link href="/usage">What it was spent on</Link>
      </p>
    </div>
  );
}

/** Signing in: by a one-time link, which `instavm dashboard` opens, or by e-mail address and password. */
import { type FormEvent, useEffect, useState } from 'react';
import { Link, Redirect, useLocation, useSearch } from 'wouter';
import { refused } from '../api/http.ts';
import { useEntrance, useSession } from '../api/session.ts';
import { Button } from '../components/button.tsx';
import { Field } from '../components/field.tsx';
import { Failure, Loading } from '../components/notes.tsx';
import { Entrance, safeNext, takeFragment } from './entrance.tsx';

export function SignInPage() {
  const [, go] = useLocation();
  const next = safeNext(useSearch());
  const session = useSession();
  const { enter } = useEntrance();
  const [error, setError] = useState<Error>();
  const [isBusy, setBusy] = useState(false);
  const [isEntering, setEntering] = useState(() => location.hash.includes('link='));

  useEffect(() => {
    const follow = (): void => {
      const token = takeFragment('link');
      if (token === undefined) return;
      setEntering(true);
      enter('link', { token })
        .then(() => go(next, { replace: true }))
        .catch(setError)
        .finally(() => setEntering(false));
    };
    follow();
    // A second link opened in the same tab changes no more than what is behind "#".
    addEventListener('hashchange', follow);
    return () => removeEventListener('hashchange', follow);
  }, [enter, go, next]);

  const submit = async (event: FormEvent<HTMLFormElement>): Promise<void> => {
    event.preventDefault();
    const form = new FormData(event.currentTarget);
    setBusy(true);
    setError(undefined);
    try {
      await enter('sign-in', { email: form.get('email'), password: form.get('password') });
      go(next, { replace: true });
    } catch (failure) {
      setError(refused(failure as Error, 'The e-mail address or the password is not right.'));
      setBusy(false);
    }
  };

  if (isEntering) return <Loading />;
  if (session.data?.account && error === undefined) return <Redirect to={next} replace />;
  return (
    <Entrance title="Sign in">
      {error && <Failure error={error} />}
      <form onSubmit={(event) => void submit(event)}>
        <Field label="E-mail address" name="email" type="email" autoComplete="username" required />
        <Field label="Password" name="password" type="password" autoComplete="current-password" required />
        <Button type="submit" kind="primary" isBusy={isBusy}>
          Sign in
        </Button>
      </form>
      <p className="muted">
        On the machine of the daemon, <code>npx instavm dashboard</code> signs the administrator in.
      </p>
      {session.data?.sign_up === 'open' && (
        <p>
          New here? <Link href="/sign-up">Make an account</Link>
        </p>
      )}
    </Entrance>
  );
}

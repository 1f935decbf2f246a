/** Making an account, where the server lets people do that. */
import { type FormEvent, useState } from 'react';
import { Link, useLocation } from 'wouter';
import { useEntrance, useSession } from '../api/session.ts';
import { Button } from '../components/button.tsx';
import { Field } from '../components/field.tsx';
import { Empty, Failure, Loading } from '../components/notes.tsx';
import { Entrance, takeFragment } from './entrance.tsx';

export const PASSWORD_LEAST = 10;

export function SignUpPage() {
  const [, go] = useLocation();
  const session = useSession();
  const [invitation] = useState(() => takeFragment('invitation'));
  const { enter } = useEntrance();
  const [error, setError] = useState<Error>();
  const [isBusy, setBusy] = useState(false);
  if (session.isPending) return <Loading />;
  const mode = session.data?.sign_up;

  const submit = async (event: FormEvent<HTMLFormElement>): Promise<void> => {
    event.preventDefault();
    const fields = Object.fromEntries(new FormData(event.currentTarget));
    setBusy(true);
    setError(undefined);
    try {
      await enter('sign-up', { ...fields, ...(invitation === undefined ? {} : { invitation }) });
      go('/quickstart', { replace: true });
    } catch (failure) {
      setError(failure as Error);
      setBusy(false);
    }
  };

  if (mode === 'closed' || (mode === 'invitation' && invitation === undefined)) {
    return (
      <Entrance title="Make an account">
        <Empty title={mode === 'closed' ? 'Sign-up is closed' : 'It takes an invitation'}>
          <p>The administrator of this server can give you access.</p>
        </Empty>
        <p>
          <Link href="/sign-in">Sign in</Link>
        </p>
      </Entrance>
    );
  }
  return (
    <Entrance title="Make an account">
      {error && <Failure error={error} />}
      <form onSubmit={(event) => void submit(event)}>
        <Field label="Name" name="name" autoComplete="name" required maxLength={200} />
        <Field label="E-mail address" name="email" type="email" autoComplete="username" required />
        <Field
          label="Password"
          hint={`At least ${PASSWORD_LEAST} characters.`}
          name="password"
          type="password"
          autoComplete="new-password"
          minLength={PASSWORD_LEAST}
          maxLength={128}
          required
        />
        <Button type="submit" kind="primary" isBusy={isBusy}>
          Make the account
        </Button>
      </form>
      <p>
        You have one? <Link href="/sign-in">Sign in</Link>
      </p>
    </Entrance>
  );
}

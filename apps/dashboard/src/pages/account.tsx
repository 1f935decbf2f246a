/** The person's own account: the password, and for the administrator, inviting others. */
import { useMutation } from '@tanstack/react-query';
import type { FormEvent } from 'react';
import { request } from '../api/http.ts';
import { useSession } from '../api/session.ts';
import { Button } from '../components/button.tsx';
import { Code } from '../components/copy.tsx';
import { Field } from '../components/field.tsx';
import { Failure } from '../components/notes.tsx';
import { Ago } from '../components/text.tsx';
import { PASSWORD_LEAST } from './sign-up.tsx';

export function AccountPage() {
  const { account, sign_up: signUp } = useSession().data ?? {};
  if (!account) return null;
  return (
    <div className="narrow">
      <div className="heading">
        <h1>Account</h1>
      </div>
      <dl className="facts-list">
        <dt>Name</dt>
        <dd>{account.name}</dd>
        <dt>E-mail address</dt>
        <dd>{account.email}</dd>
        <dt>Account id</dt>
        <dd>
          <code>{account.id}</code>
        </dd>
      </dl>
      {account.is_administrator ? <Invitations isOpen={signUp === 'invitation'} /> : <PasswordForm />}
    </div>
  );
}

function PasswordForm() {
  const change = useMutation({
    mutationFn: (json: object) => request('POST', '/api/auth/password', { json }),
  });
  const submit = (event: FormEvent<HTMLFormElement>): void => {
    event.preventDefault();
    const form = event.currentTarget;
    change.mutate(Object.fromEntries(new FormData(form)), { onSuccess: () => form.reset() });
  };
  return (
    <section aria-labelledby="password">
      <h2 id="password">Change the password</h2>
      <form onSubmit={submit}>
        <Field label="Present password" name="present" type="password" autoComplete="current-password" required />
        <Field
          label="New password"
          hint={`At least ${PASSWORD_LEAST} characters. Other browsers are signed out.`}
          name="next"
          type="password"
          autoComplete="new-password"
          minLength={PASSWORD_LEAST}
          maxLength={128}
          required
        />
        {change.isError && <Failure error={change.error} />}
        {change.isSuccess && <p role="status">It is changed.</p>}
        <Button type="submit" kind="primary" isBusy={change.isPending}>
          Change it
        </Button>
      </form>
    </section>
  );
}

function Invitations({ isOpen }: { isOpen: boolean }) {
  const invite = useMutation({
    mutationFn: () => request<{ url: string; expires_at: string }>('POST', '/api/auth/invitations'),
  });
  return (
    <section aria-labelledby="invite">
      <h2 id="invite">Invite somebody</h2>
      <p className="muted">
        You are the administrator of this server: <code>npx instavm dashboard</code> signs you in, without a password.
      </p>
      <Button
        isBusy={invite.isPending}
        reason={isOpen ? undefined : 'The server is not started with INSTAVM_SIGN_UP=invitation.'}
        onClick={() => invite.mutate()}
      >
        Make an invitation
      </Button>
      {invite.isError && <Failure error={invite.error} />}
      {invite.data && (
        <>
          <Code label="Invitation" text={invite.data.url} />
          <p className="muted">
            It makes one account, and is valid until it is used; it ends <Ago at={invite.data.expires_at} />.
          </p>
        </>
      )}
    </section>
  );
}

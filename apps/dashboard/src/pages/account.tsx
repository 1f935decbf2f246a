/** The person's own account: its limits, the password, and for the administrator, inviting others. */
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, Fragment } from 'react';
import { refused, request } from '../api/http.ts';
import { useSession } from '../api/session.ts';
import type { SignInState } from '../api/types.ts';
import { useQuotas } from '../api/usage.ts';
import { Button } from '../components/button.tsx';
import { Code } from '../components/copy.tsx';
import { Field } from '../components/field.tsx';
import { Failure, Loading } from '../components/notes.tsx';
import { PageHead } from '../components/page-head.tsx';
import { Ago, bytes } from '../components/text.tsx';
import { PASSWORD_LEAST } from './sign-up.tsx';

export function AccountPage() {
  const { account, sign_up: signUp } = useSession().data ?? {};
  if (!account) return null;
  return (
    <div className="narrow">
      <PageHead title="Account" />
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
      <Limits />
      {account.is_administrator ? <Invitations signUp={signUp} /> : <PasswordForm />}
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
        {change.isError && <Failure error={refused(change.error, 'The present password is not that.')} />}
        {change.isSuccess && <p role="status">It is changed.</p>}
        <Button type="submit" kind="primary" isBusy={change.isPending}>
          Change it
        </Button>
      </form>
    </section>
  );
}

/** What is counted against a limit, and what the others are. */
const COUNTED = [
  ['sandboxes', 'Running sandboxes', grouped],
  ['vcpus', 'Their vCPUs', grouped],
  ['memory_mib', 'Their memory', mebibytes],
  ['snapshots', 'Snapshots', grouped],
  ['stored_mib', 'Stored on the disk', mebibytes],
] as const;

function Limits() {
  const quotas = useQuotas();
  return (
    <section aria-labelledby="limits">
      <h2 id="limits">Limits</h2>
      {quotas.isPending && <Loading />}
      {quotas.isError && <Failure error={quotas.error} />}
      {quotas.data && (
        <dl className="facts-list">
          {COUNTED.map(([name, label, show]) => (
            <Fragment key={name}>
              <dt>{label}</dt>
              <dd>
                {show(quotas.data.used[name])} of {show(quotas.data.quotas[name])}
              </dd>
            </Fragment>
          ))}
          <dt>New sandboxes</dt>
          <dd>{grouped(quotas.data.quotas.creates_per_minute)} a minute</dd>
          <dt>Requests</dt>
          <dd>{grouped(quotas.data.quotas.requests_per_minute)} a minute</dd>
        </dl>
      )}
    </section>
  );
}

function grouped(count: number): string {
  return count.toLocaleString();
}

function mebibytes(count: number): string {
  return bytes(count * 1024 ** 2);
}

const WHY_NOT = {
  open: 'Nobody needs an invitation: sign-up is open (INSTAVM_SIGN_UP=open).',
  closed: 'Sign-up is closed. Start the server with INSTAVM_SIGN_UP=invitation to let people in by invitation.',
} as const;

function Invitations({ signUp }: { signUp: SignInState['sign_up'] | undefined }) {
  const invite = useMutation({
    mutationFn: () => request<{ url: string; expires_at: string }>('POST', '/api/auth/invitations'),
  });
  return (
    <section aria-labelledby="administration">
      <h2 id="administration">Administration</h2>
      <p>
        You are the administrator of this server. <code>npx instavm dashboard</code> signs you in without a password;{' '}
        <code>npx instavm credit add</code> and <code>npx instavm quota set</code> change what an account may use.
      </p>
      {signUp === 'open' || signUp === 'closed' ? (
        <p className="muted">{WHY_NOT[signUp]}</p>
      ) : (
        <Button isBusy={invite.isPending} onClick={() => invite.mutate()}>
          Invite somebody
        </Button>
      )}
      {invite.isError && <Failure error={invite.error} />}
      {invite.data && (
        <>
          <Code label="Invitation" text={invite.data.url} />
          <p className="muted">
            Send it to the person: it makes one account, and ends <Ago at={invite.data.expires_at} />.
          </p>
        </>
      )}
    </section>
  );
}

/** API keys: made, shown once, rotated, revoked. */
import { type FormEvent, useState } from 'react';
import { Link } from 'wouter';
import {
  type ApiKey,
  type KeyScope,
  type NewKey,
  useCreateKey,
  useKeys,
  useRevokeKey,
  useRotateKey,
} from '../api/keys.ts';
import { Button } from '../components/button.tsx';
import { Confirm } from '../components/confirm.tsx';
import { Code } from '../components/copy.tsx';
import { Dialog } from '../components/dialog.tsx';
import { Field } from '../components/field.tsx';
import { ListHead } from '../components/list-head.tsx';
import { Empty, Failure, Loading } from '../components/notes.tsx';
import { Ago } from '../components/text.tsx';

const SCOPES: readonly (readonly [KeyScope, string])[] = [
  ['full', 'Everything'],
  ['run', 'Run sandboxes, not keys or money'],
  ['read', 'Only look'],
];
const DAY_MS = 86_400_000;
const EXPIRIES = [
  ['', 'Never'],
  ['7', 'In 7 days'],
  ['30', 'In 30 days'],
  ['90', 'In 90 days'],
] as const;

export function KeysPage() {
  const keys = useKeys();
  const [isCreating, setCreating] = useState(false);
  const [shown, setShown] = useState<NewKey>();
  return (
    <>
      <div className="heading">
        <h1>API keys</h1>
        <Button kind="primary" onClick={() => setCreating(true)}>
          New key
        </Button>
      </div>
      {shown && (
        <div className="note" role="status">
          <h2>Copy it now: it is not shown again</h2>
          <Code label={shown.name} text={shown.api_key} />
          <p>
            The <Link href="/quickstart">quickstart</Link> has it filled in, as long as this page is open.
          </p>
          <Button onClick={() => setShown(undefined)}>Done</Button>
        </div>
      )}
      {keys.isPending && <Loading />}
      {keys.isError && <Failure error={keys.error} />}
      {keys.data?.length === 0 && (
        <Empty title="No key yet">
          <p>Programs and the command line prove with a key whose sandboxes they may use.</p>
        </Empty>
      )}
      {keys.data !== undefined && keys.data.length > 0 && <KeyTable keys={keys.data} onRotated={setShown} />}
      {isCreating && (
        <CreateKey
          onClose={() => setCreating(false)}
          onCreated={(key) => {
            setShown(key);
            setCreating(false);
          }}
        />
      )}
    </>
  );
}

function KeyTable({ keys, onRotated }: { keys: readonly ApiKey[]; onRotated: (key: NewKey) => void }) {
  const revoke = useRevokeKey();
  const rotate = useRotateKey();
  const [doomed, setDoomed] = useState<ApiKey>();
  return (
    <>
      {revoke.isError && <Failure error={revoke.error} />}
      {rotate.isError && <Failure error={rotate.error} />}
      <table className="list">
        <ListHead columns={['Name', 'Scope', 'Made', 'Last used', 'Ends']} />
        <tbody>
          {keys.map((key) => (
            <tr key={key.id}>
              <td data-label="Name">
                <span className="name">{key.name}</span>
                <code className="muted id">{key.prefix}…</code>
              </td>
              <td data-label="Scope">{key.scope}</td>
              <td data-label="Made">
                <Ago at={key.created_at} />
              </td>
              <td data-label="Last used">{key.last_used_at === null ? 'never' : <Ago at={key.last_used_at} />}</td>
              <td data-label="Ends">{key.expires_at === null ? 'never' : <Ago at={key.expires_at} />}</td>
              <td className="row-actions">
                <div className="actions">
                  <Button
                    label={`Rotate ${key.name}`}
                    isBusy={rotate.isPending}
                    onClick={() => rotate.mutate(key.id, { onSuccess: onRotated })}
                  >
                    Rotate
                  </Button>
                  <Button kind="danger" label={`Revoke ${key.name}`} onClick={() => setDoomed(key)}>
                    Revoke
                  </Button>
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {doomed && (
        <Confirm
          title={`Revoke ${doomed.name}?`}
          verb="Revoke"
          onConfirm={() => revoke.mutate(doomed.id)}
          onClose={() => setDoomed(undefined)}
        >
          <p>Whatever uses it is refused from now on. This cannot be undone.</p>
        </Confirm>
      )}
    </>
  );
}

function CreateKey({ onClose, onCreated }: { onClose: () => void; onCreated: (key: NewKey) => void }) {
  const create = useCreateKey();
  const [name, setName] = useState('');
  const [scope, setScope] = useState<KeyScope>('full');
  const [days, setDays] = useState('');
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const expires_at = days === '' ? null : new Date(Date.now() + Number(days) * DAY_MS).toISOString();
    create.mutate({ name, scope, expires_at }, { onSuccess: onCreated });
  };
  return (
    <Dialog title="New API key" onClose={onClose}>
      <form onSubmit={submit}>
        <Field
          label="Name"
          hint="What it is for, so that you know which one to revoke."
          value={name}
          required
          maxLength={100}
          onChange={({ target }) => setName(target.value)}
        />
        <label className="field">
          <span>It may do</span>
          <select value={scope} onChange={({ target }) => setScope(target.value as KeyScope)}>
            {SCOPES.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
        <label className="field">
          <span>It ends</span>
          <select value={days} onChange={({ target }) => setDays(target.value)}>
            {EXPIRIES.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
        {create.isError && <Failure error={create.error} />}
        <div className="actions">
          <Button type="submit" kind="primary" isBusy={create.isPending}>
            Make the key
          </Button>
          <Button onClick={onClose}>Cancel</Button>
        </div>
      </form>
    </Dialog>
  );
}

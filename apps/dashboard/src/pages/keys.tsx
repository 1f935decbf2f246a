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
import { PageHead } from '../components/page-head.tsx';
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

const GRACES = [
  [0, 'At once'],
  [3_600, 'In an hour'],
  [86_400, 'In a day'],
  [604_800, 'In a week'],
] as const;

export function KeysPage() {
  const keys = useKeys();
  const [isCreating, setCreating] = useState(false);
  const [shown, setShown] = useState<NewKey>();
  return (
    <>
      <PageHead title="API keys">
        <Button kind="primary" onClick={() => setCreating(true)}>
          New key
        </Button>
      </PageHead>
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
  const [turning, setTurning] = useState<ApiKey>();
  const [doomed, setDoomed] = useState<ApiKey>();
  return (
    <>
      {revoke.isError && <Failure error={revoke.error} />}
      <table className="list">
        <ListHead columns={['Name', 'Scope', 'Made', 'Last used', 'Ends']} />
        <tbody>
          {keys.map((key) => (
            <tr key={key.id}>
              <td data-label="Name">
                <span className="name">{key.name}</span>
                <code className="muted id">{key.prefix}…</code>
              </td>
              <td data-label="Scope">
                <div>
                  {key.scope}
                  {key.sandbox_metadata !== null && (
                    <p className="why">only sandboxes with {entriesOf(key.sandbox_metadata)}</p>
                  )}
                </div>
              </td>
              <td data-label="Made">
                <Ago at={key.created_at} />
              </td>
              <td data-label="Last used">{key.last_used_at === null ? 'never' : <Ago at={key.last_used_at} />}</td>
              <td data-label="Ends">{key.expires_at === null ? 'never' : <Ago at={key.expires_at} />}</td>
              <td className="row-actions">
                <div className="actions">
                  <Button label={`Rotate ${key.name}`} onClick={() => setTurning(key)}>
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
      {turning && (
        <RotateKey
          apiKey={turning}
          onClose={() => setTurning(undefined)}
          onRotated={(key) => {
            onRotated(key);
            setTurning(undefined);
          }}
        />
      )}
      {doomed && (
        <Confirm
          title={`Revoke “${doomed.name}”?`}
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

/** One or more name=value. */
const ENTRIES = '\\s*[^=,\\s]+=[^=,]+(,\\s*[^=,\\s]+=[^=,]+)*';

const entriesIn = (text: string): Record<string, string> =>
  Object.fromEntries(
    text.split(',').flatMap((entry) => {
      const [name = '', value = ''] = entry.split('=');
      return name.trim() === '' ? [] : [[name.trim(), value.trim()]];
    }),
  );

const entriesOf = (metadata: Readonly<Record<string, unknown>>): string =>
  Object.entries(metadata)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(', ');

type RotateProps = {
  readonly apiKey: ApiKey;
  readonly onClose: () => void;
  readonly onRotated: (key: NewKey) => void;
};

function RotateKey({ apiKey, onClose, onRotated }: RotateProps) {
  const rotate = useRotateKey();
  const [grace, setGrace] = useState(0);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    rotate.mutate({ id: apiKey.id, graceSeconds: grace }, { onSuccess: onRotated });
  };
  return (
    <Dialog title={`Rotate “${apiKey.name}”?`} onClose={onClose}>
      <form onSubmit={submit}>
        <p>It gets a new secret, which is shown once. Name, scope and end stay.</p>
        <label className="field">
          <span>The present secret stops working</span>
          <select value={grace} onChange={({ target }) => setGrace(Number(target.value))}>
            {GRACES.map(([seconds, text]) => (
              <option key={seconds} value={seconds}>
                {text}
              </option>
            ))}
          </select>
        </label>
        {rotate.isError && <Failure error={rotate.error} />}
        <div className="actions">
          <Button type="submit" kind="primary" isBusy={rotate.isPending}>
            Rotate it
          </Button>
          <Button onClick={onClose}>Cancel</Button>
        </div>
      </form>
    </Dialog>
  );
}

function CreateKey({ onClose, onCreated }: { onClose: () => void; onCreated: (key: NewKey) => void }) {
  const create = useCreateKey();
  const [name, setName] = useState('');
  const [scope, setScope] = useState<KeyScope>('full');
  const [days, setDays] = useState('');
  const [only, setOnly] = useState('');
  const restriction = scope === 'full' ? {} : entriesIn(only);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const expires_at = days === '' ? null : new Date(Date.now() + Number(days) * DAY_MS).toISOString();
    const isRestricted = Object.keys(restriction).length > 0;
    create.mutate(
      { name, scope, expires_at, ...(isRestricted ? { sandbox_metadata: restriction } : {}) },
      { onSuccess: onCreated },
    );
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
        {scope !== 'full' && (
          <Field
            label="Only for sandboxes with (optional)"
            hint="Entries of their metadata, such as: team=red, stage=test"
            value={only}
            pattern={ENTRIES}
            title="name=value, separated by commas"
            onChange={({ target }) => setOnly(target.value)}
          />
        )}
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

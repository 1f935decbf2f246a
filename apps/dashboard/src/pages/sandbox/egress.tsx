/** What the sandbox may reach, and what it tries to, live. */
import { type FormEvent, useState } from 'react';
import { useDestinationTest, useEgressLog, usePolicy, useSetPolicy } from '../../api/egress.ts';
import { hasEnded } from '../../api/sandboxes.ts';
import type { EgressPolicyInForce } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Field } from '../../components/field.tsx';
import { Failure, Loading } from '../../components/notes.tsx';
import { bytes } from '../../components/text.tsx';
import type { ViewProps } from './index.tsx';

export function EgressView({ sandbox }: ViewProps) {
  const policy = usePolicy(sandbox.id);
  const save = useSetPolicy(sandbox.id);
  return (
    <div className="two-columns">
      <section aria-labelledby="policy">
        <h2 id="policy">Policy</h2>
        {policy.isPending && <Loading />}
        {policy.isError && <Failure error={policy.error} />}
        {policy.data && (
          <PolicyForm key={JSON.stringify(policy.data)} policy={policy.data} save={save} isOver={hasEnded(sandbox)} />
        )}
        <DestinationTest id={sandbox.id} />
      </section>
      <EgressLog id={sandbox.id} isOver={hasEnded(sandbox)} />
    </div>
  );
}

type FormProps = {
  readonly policy: EgressPolicyInForce;
  readonly save: ReturnType<typeof useSetPolicy>;
  readonly isOver: boolean;
};

const SWITCHES = [
  ['allow_public_repos', 'Package registries', 'PyPI, npm, Debian and the like.'],
  ['allow_https', 'Any host over HTTPS', 'Port 443.'],
  ['allow_http', 'Any host over HTTP', 'Port 80.'],
] as const;

function PolicyForm({ policy, save, isOver }: FormProps) {
  const { is_default: isDefault, ...fields } = policy;
  const [draft, setDraft] = useState(fields);
  const [domains, setDomains] = useState(fields.allowed_domains.join('\n'));
  const [cidrs, setCidrs] = useState(fields.allowed_cidrs.join('\n'));
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    save.mutate({ ...draft, allowed_domains: words(domains), allowed_cidrs: words(cidrs) });
  };
  return (
    <form onSubmit={submit}>
      {isDefault && <p className="muted">The server's default is in force: nobody has set a policy.</p>}
      <fieldset className="bare" disabled={isOver}>
        {SWITCHES.map(([name, label, hint]) => (
          <label key={name} className="check">
            <input
              type="checkbox"
              checked={draft[name]}
              onChange={({ target }) => setDraft({ ...draft, [name]: target.checked })}
            />
            <span>
              {label} <span className="muted">{hint}</span>
            </span>
          </label>
        ))}
        <label className="field">
          <span>Domains</span>
          <textarea
            rows={4}
            spellCheck={false}
            placeholder={'example.com\n*.example.org'}
            value={domains}
            onChange={({ target }) => setDomains(target.value)}
          />
        </label>
        <label className="field">
          <span>Address ranges</span>
          <textarea
            rows={2}
            spellCheck={false}
            placeholder="203.0.113.0/24"
            value={cidrs}
            onChange={({ target }) => setCidrs(target.value)}
          />
        </label>
      </fieldset>
      {save.isError && <Failure error={save.error} />}
      {save.isSuccess && <p role="status">It is in force.</p>}
      <Button
        type="submit"
        kind="primary"
        isBusy={save.isPending}
        reason={isOver ? 'The sandbox has ended.' : undefined}
      >
        Put in force
      </Button>
    </form>
  );
}

const words = (text: string): string[] => text.split(/[\s,]+/).filter((word) => word !== '');

function DestinationTest({ id }: { id: string }) {
  const test = useDestinationTest(id);
  const [destination, setDestination] = useState('');
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    test.mutate(destination.includes(':') ? destination : `${destination}:443`);
  };
  return (
    <form className="inline-form" onSubmit={submit}>
      <Field
        label="Would it be allowed?"
        placeholder="pypi.org:443"
        value={destination}
        required
        onChange={({ target }) => setDestination(target.value)}
      />
      <Button type="submit" isBusy={test.isPending}>
        Ask
      </Button>
      {test.isError && <Failure error={test.error} />}
      {test.data && (
        <p role="status">
          <span className={`badge ${test.data.allowed ? 'allowed' : 'denied'}`}>
            {test.data.allowed ? 'allowed' : 'denied'}
          </span>{' '}
          by {test.data.rule}
          {test.data.reason !== null && `: ${test.data.reason}`}
        </p>
      )}
    </form>
  );
}

function EgressLog({ id, isOver }: { id: string; isOver: boolean }) {
  const { rows, isLive } = useEgressLog(id);
  return (
    <section aria-labelledby="connections">
      <h2 id="connections">
        Connections{' '}
        {!isOver && <span className={isLive ? 'badge running' : 'badge'}>{isLive ? 'live' : 'connecting'}</span>}
      </h2>
      {rows.length === 0 && (
        <p className="muted">{isOver ? 'It tried to reach nothing.' : 'It has not tried to reach anything yet.'}</p>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by keyboard. */}
      <ol className="log" aria-live="polite" aria-labelledby="connections" tabIndex={0}>
        {rows.map(({ key, entry }) =>
          entry.kind === 'gap' ? (
            <li key={key} className="muted">
              {entry.missed} entries are not kept any more
            </li>
          ) : (
            <li key={key}>
              <span className={`badge ${entry.allowed ? 'allowed' : 'denied'}`}>
                {entry.allowed ? entry.outcome : 'denied'}
              </span>
              <span className="break">
                {entry.kind === 'lookup' && 'look-up of '}
                {entry.host}
                {entry.port !== null && `:${entry.port}`}
                {entry.repeated > 1 && ` (${entry.repeated} times)`}
              </span>
              <span className="log-detail muted">
                <time dateTime={entry.at}>{new Date(entry.at).toLocaleTimeString()}</time> · {entry.rule}
                {entry.bytes_received > 0 && ` · ${bytes(entry.bytes_sent)} out, ${bytes(entry.bytes_received)} in`}
                {entry.reason !== null && ` · ${entry.reason}`}
              </span>
            </li>
          ),
        )}
      </ol>
    </section>
  );
}

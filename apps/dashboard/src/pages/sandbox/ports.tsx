/** Ports of a sandbox that have an address, and their previews. */
import { useMutation } from '@tanstack/react-query';
import { type FormEvent, useState } from 'react';
import { verdictOn } from '../../api/sandboxes.ts';
import { shareLink, useShareChange, useShares } from '../../api/shares.ts';
import type { Share } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Copy } from '../../components/copy.tsx';
import { Field } from '../../components/field.tsx';
import { ListHead } from '../../components/list-head.tsx';
import { Empty, Failure, Loading } from '../../components/notes.tsx';
import type { ViewProps } from './index.tsx';

export function PortsView({ sandbox }: ViewProps) {
  const { id, state } = sandbox;
  const verdict = verdictOn('use', state);
  const shares = useShares(id);
  const change = useShareChange(id);
  const [port, setPort] = useState('');
  const [isPublic, setPublic] = useState(false);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    const done = (): void => {
      setPort('');
      setPublic(false);
    };
    change.mutate({ kind: 'create', port: Number(port), isPublic }, { onSuccess: done });
  };
  return (
    <section aria-label="Ports">
      <form className="inline-form" onSubmit={submit}>
        <Field
          label="Port"
          type="number"
          min={1}
          max={65_535}
          required
          value={port}
          onChange={({ target }) => setPort(target.value)}
        />
        <label className="check">
          <input type="checkbox" checked={isPublic} onChange={({ target }) => setPublic(target.checked)} />
          Public: anyone may open it
        </label>
        <Button
          type="submit"
          kind="primary"
          isBusy={change.isPending}
          reason={verdict.isAllowed ? undefined : verdict.reason}
        >
          Share
        </Button>
      </form>
      {change.isError && <Failure error={change.error} />}
      {shares.isError && <Failure error={shares.error} />}
      {shares.isPending && <Loading />}
      {shares.data?.length === 0 && (
        <Empty title="No port has an address">
          <p>Start a service in a terminal, then share its port: it gets an HTTPS address.</p>
        </Empty>
      )}
      {shares.data !== undefined && shares.data.length > 0 && (
        <table className="list">
          <ListHead columns={['Port', 'Address', 'Access']} />
          <tbody>
            {shares.data.map((share) => (
              <Row key={share.share_id} share={share} change={change} />
            ))}
          </tbody>
        </table>
      )}
    </section>
  );
}

function Row({ share, change }: { share: Share; change: ReturnType<typeof useShareChange> }) {
  const { share_id: shareId, port, url, is_public: isPublic } = share;
  const open = useMutation({
    mutationFn: async (tab: Window | null) => {
      const address = isPublic ? url : await shareLink(shareId);
      if (tab !== null) tab.location.href = address;
    },
  });
  return (
    <tr>
      <td data-label="Port">{port}</td>
      <td data-label="Address">
        <code className="break">{url}</code>
        {open.isError && <Failure error={open.error} />}
      </td>
      <td data-label="Access">
        <span className={isPublic ? 'badge public' : 'badge'}>{isPublic ? 'public' : 'private'}</span>
      </td>
      <td className="row-actions">
        <div className="actions">
          <Button
            kind="primary"
            onClick={() => {
              // At once, or the browser takes it for an advertisement; it must not be able to reach this page.
              const tab = window.open('about:blank', '_blank');
              if (tab !== null) tab.opener = null;
              open.mutate(tab);
            }}
          >
            Open
          </Button>
          <Copy text={url} label="Copy address" />
          <Button
            isBusy={change.isPending}
            onClick={() => change.mutate({ kind: 'publish', shareId, isPublic: !isPublic })}
          >
            {isPublic ? 'Make private' : 'Make public'}
          </Button>
          <Button kind="danger" isBusy={change.isPending} onClick={() => change.mutate({ kind: 'revoke', shareId })}>
            Revoke
          </Button>
        </div>
      </td>
    </tr>
  );
}

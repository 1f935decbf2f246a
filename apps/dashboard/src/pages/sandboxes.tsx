/** All sandboxes of the account, live. */
import { useState } from 'react';
import { Link } from 'wouter';
import { MOST_LISTED, useSandboxes } from '../api/sandboxes.ts';
import type { Sandbox } from '../api/types.ts';
import { Button } from '../components/button.tsx';
import { ListHead } from '../components/list-head.tsx';
import { Empty, Failure, Loading } from '../components/notes.tsx';
import { PageHead } from '../components/page-head.tsx';
import { Ago, Lifetime, nameOf, StateBadge } from '../components/text.tsx';
import { CreateSandbox } from './create-sandbox.tsx';
import { SandboxActions } from './sandbox/actions.tsx';

export function SandboxesPage() {
  const [isCreating, setCreating] = useState(false);
  const [withEnded, setWithEnded] = useState(false);
  const sandboxes = useSandboxes(withEnded);
  const shown = sandboxes.data ?? [];
  return (
    <>
      <PageHead title="Sandboxes">
        <label className="check">
          <input type="checkbox" checked={withEnded} onChange={({ target }) => setWithEnded(target.checked)} />
          Show ended ones
        </label>
        <Button kind="primary" onClick={() => setCreating(true)}>
          New sandbox
        </Button>
      </PageHead>
      {sandboxes.isPending && <Loading />}
      {sandboxes.isError && <Failure error={sandboxes.error} />}
      {sandboxes.data && shown.length === 0 && (
        <Empty title={withEnded ? 'No sandbox yet' : 'No sandbox is here'}>
          <p>
            Make one here, or follow the <Link href="/quickstart">quickstart</Link>.
          </p>
        </Empty>
      )}
      {shown.length > 0 && (
        <table className="list">
          <ListHead columns={['Sandbox', 'State', 'Size', 'Made', 'Lifetime']} />
          <tbody>
            {shown.map((sandbox) => (
              <Row key={sandbox.id} sandbox={sandbox} />
            ))}
          </tbody>
        </table>
      )}
      {shown.length >= MOST_LISTED && <p className="muted">The newest {MOST_LISTED}.</p>}
      {isCreating && <CreateSandbox onClose={() => setCreating(false)} />}
    </>
  );
}

function Row({ sandbox }: { sandbox: Sandbox }) {
  const { id, state, state_reason, memory_mb, vcpu_count, created_at } = sandbox;
  return (
    <tr>
      <td data-label="Sandbox">
        <Link href={`/sandboxes/${id}`} className="name">
          {nameOf(sandbox)}
        </Link>
        <code className="muted id">{id}</code>
      </td>
      <td data-label="State">
        <div>
          <StateBadge state={state} />
          {state === 'failed' && state_reason !== null && <p className="why">{state_reason}</p>}
        </div>
      </td>
      <td data-label="Size">
        {memory_mb} MiB, {vcpu_count} vCPU
      </td>
      <td data-label="Made">
        <Ago at={created_at} />
      </td>
      <td data-label="Lifetime">
        <Lifetime sandbox={sandbox} />
      </td>
      <td className="row-actions">
        <SandboxActions sandbox={sandbox} />
      </td>
    </tr>
  );
}

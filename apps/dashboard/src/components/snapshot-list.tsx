/** Snapshots, with what can be done with them. */
import { useState } from 'react';
import { useDeleteSnapshot } from '../api/snapshots.ts';
import type { Snapshot } from '../api/types.ts';
import { CreateSandbox } from '../pages/create-sandbox.tsx';
import { Button } from './button.tsx';
import { Confirm } from './confirm.tsx';
import { ListHead } from './list-head.tsx';
import { Failure } from './notes.tsx';
import { Ago, bytes, StateBadge } from './text.tsx';

export function SnapshotList({ snapshots }: { snapshots: readonly Snapshot[] }) {
  const remove = useDeleteSnapshot();
  const [restored, setRestored] = useState<Snapshot>();
  const [doomed, setDoomed] = useState<Snapshot>();
  return (
    <>
      {remove.isError && <Failure error={remove.error} />}
      <table className="list">
        <ListHead columns={['Name', 'Status', 'Size', 'Taken']} />
        <tbody>
          {snapshots.map((snapshot) => (
            <tr key={snapshot.id}>
              <td data-label="Name">
                <span className="name">{snapshot.name}</span>
                <code className="muted id">{snapshot.id}</code>
              </td>
              <td data-label="Status" title={snapshot.error ?? undefined}>
                <StateBadge state={snapshot.status} />
              </td>
              <td data-label="Size">{snapshot.size_bytes > 0 ? bytes(snapshot.size_bytes) : '–'}</td>
              <td data-label="Taken">
                <Ago at={snapshot.created_at} />
              </td>
              <td className="row-actions">
                <div className="actions">
                  <Button
                    label={`New sandbox from ${snapshot.name}`}
                    reason={snapshot.status === 'ready' ? undefined : `It is ${snapshot.status}.`}
                    onClick={() => setRestored(snapshot)}
                  >
                    New sandbox
                  </Button>
                  <Button
                    kind="danger"
                    label={`Delete ${snapshot.name}`}
                    isBusy={remove.isPending}
                    onClick={() => setDoomed(snapshot)}
                  >
                    Delete
                  </Button>
                </div>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {doomed && (
        <Confirm
          title={`Delete “${doomed.name}”?`}
          verb="Delete"
          onConfirm={() => remove.mutate(doomed.id)}
          onClose={() => setDoomed(undefined)}
        >
          <p>Sandboxes that began in it are not touched.</p>
        </Confirm>
      )}
      {restored && <CreateSandbox snapshotId={restored.id} onClose={() => setRestored(undefined)} />}
    </>
  );
}

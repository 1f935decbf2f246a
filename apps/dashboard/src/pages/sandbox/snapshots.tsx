/** Snapshots of one sandbox. */
import { type FormEvent, useState } from 'react';
import { verdictOn } from '../../api/sandboxes.ts';
import { useSnapshots, useTakeSnapshot } from '../../api/snapshots.ts';
import { Button } from '../../components/button.tsx';
import { Field } from '../../components/field.tsx';
import { Empty, Failure, Loading } from '../../components/notes.tsx';
import { SnapshotList } from '../../components/snapshot-list.tsx';
import type { ViewProps } from './index.tsx';

export function SnapshotsView({ sandbox }: ViewProps) {
  const snapshots = useSnapshots();
  const take = useTakeSnapshot(sandbox.id);
  const [name, setName] = useState('');
  const verdict = verdictOn('snapshot', sandbox.state);
  const own = snapshots.data?.filter(({ source_session_id }) => source_session_id === sandbox.id);
  const submit = (event: FormEvent): void => {
    event.preventDefault();
    take.mutate(name, { onSuccess: () => setName('') });
  };
  return (
    <section aria-label="Snapshots">
      <form className="inline-form" onSubmit={submit}>
        <Field label="Name (optional)" maxLength={200} value={name} onChange={({ target }) => setName(target.value)} />
        <Button
          type="submit"
          kind="primary"
          isBusy={take.isPending}
          reason={verdict.isAllowed ? undefined : verdict.reason}
        >
          Take a snapshot
        </Button>
      </form>
      {take.isError && <Failure error={take.error} />}
      {snapshots.isPending && <Loading />}
      {snapshots.isError && <Failure error={snapshots.error} />}
      {own?.length === 0 && (
        <Empty title="No snapshot of it yet">
          <p>Memory, processes, terminals and disk are kept; the sandbox goes on.</p>
        </Empty>
      )}
      {own !== undefined && own.length > 0 && <SnapshotList snapshots={own} />}
    </section>
  );
}

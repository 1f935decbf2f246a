/** Suspend, resume and delete, as its state allows. */
import { useState } from 'react';
import { type Action, useSandboxAction, verdictOn } from '../../api/sandboxes.ts';
import type { Sandbox } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Confirm } from '../../components/confirm.tsx';
import { Failure } from '../../components/notes.tsx';
import { shortId } from '../../components/text.tsx';

export function SandboxActions({ sandbox }: { sandbox: Sandbox }) {
  const { id, state } = sandbox;
  const action = useSandboxAction(id);
  const [isAsking, setAsking] = useState(false);
  const reasonOf = (wanted: Action): string | undefined => {
    const verdict = verdictOn(wanted, state);
    return verdict.isAllowed ? undefined : verdict.reason;
  };
  return (
    <div className="actions">
      {state === 'suspended' || state === 'resuming' ? (
        <Button reason={reasonOf('resume')} isBusy={action.isPending} onClick={() => action.mutate('resume')}>
          Resume
        </Button>
      ) : (
        <Button reason={reasonOf('suspend')} isBusy={action.isPending} onClick={() => action.mutate('suspend')}>
          Suspend
        </Button>
      )}
      <Button kind="danger" reason={reasonOf('delete')} isBusy={action.isPending} onClick={() => setAsking(true)}>
        Delete
      </Button>
      {action.isError && <Failure error={action.error} />}
      {isAsking && (
        <Confirm
          title={`Delete ${shortId(id)}?`}
          verb="Delete"
          onConfirm={() => action.mutate('delete')}
          onClose={() => setAsking(false)}
        >
          <p>Its memory and its disk are gone then. Snapshots of it stay.</p>
        </Confirm>
      )}
    </div>
  );
}

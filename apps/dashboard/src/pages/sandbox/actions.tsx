/** Suspend, resume and delete, as its state allows. */
import { useState } from 'react';
import { type Action, useSandboxAction, verdictOn } from '../../api/sandboxes.ts';
import type { Sandbox } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Confirm } from '../../components/confirm.tsx';
import { Failure } from '../../components/notes.tsx';
import { nameOf } from '../../components/text.tsx';

export function SandboxActions({ sandbox }: { sandbox: Sandbox }) {
  const { id, state } = sandbox;
  const name = nameOf(sandbox);
  const action = useSandboxAction(id);
  const [isAsking, setAsking] = useState(false);
  const reasonOf = (wanted: Action): string | undefined => {
    const verdict = verdictOn(wanted, state);
    return verdict.isAllowed ? undefined : verdict.reason;
  };
  return (
    <div className="actions">
      {state === 'suspended' || state === 'resuming' ? (
        <Button
          label={`Resume ${name}`}
          reason={reasonOf('resume')}
          isBusy={action.isPending}
          onClick={() => action.mutate('resume')}
        >
          Resume
        </Button>
      ) : (
        <Button
          label={`Suspend ${name}`}
          reason={reasonOf('suspend')}
          isBusy={action.isPending}
          onClick={() => action.mutate('suspend')}
        >
          Suspend
        </Button>
      )}
      <Button
        kind="danger"
        label={`Delete ${name}`}
        reason={reasonOf('delete')}
        isBusy={action.isPending}
        onClick={() => setAsking(true)}
      >
        Delete
      </Button>
      {action.isError && <Failure error={action.error} />}
      {isAsking && (
        <Confirm
          title={`Delete “${name}”?`}
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

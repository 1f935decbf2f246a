/** What stands where only a running sandbox has something to show: looking must not wake it, since what runs costs. */
import { useSandboxAction, verdictOn } from '../../api/sandboxes.ts';
import type { Sandbox } from '../../api/types.ts';
import { Button } from '../../components/button.tsx';
import { Empty, Failure } from '../../components/notes.tsx';

/** @param what of it comes back, as a sentence */
export function Suspended({ sandbox, what }: { sandbox: Sandbox; what: string }) {
  const resume = useSandboxAction(sandbox.id);
  const verdict = verdictOn('resume', sandbox.state);
  return (
    <Empty title={sandbox.state === 'suspended' ? 'It is suspended' : `It is ${sandbox.state}`}>
      <p>{what}</p>
      <Button
        kind="primary"
        isBusy={resume.isPending}
        reason={verdict.isAllowed ? undefined : verdict.reason}
        onClick={() => resume.mutate('resume')}
      >
        {resume.isPending ? 'Resuming …' : 'Resume it'}
      </Button>
      {resume.isError && <Failure error={resume.error} />}
    </Empty>
  );
}

/** Runs a command or a Python cell to its end, or to a deadline, and collects what it wrote. */
import type { ExecEvent, ExecExit } from '@instavm/agent-client';
import { InstaVMError } from '@instavm/wire';
import { CollectedOutput } from './collected-output.ts';
import { guestError } from './errors.ts';
import type { Guest } from './guest.ts';
import type { OutputBudget } from './output-budget.ts';

export type RunResult = {
  readonly stdout: readonly Uint8Array[];
  readonly stderr: readonly Uint8Array[];
  readonly exit: Pick<ExecExit, 'code' | 'timedOut' | 'wallTimeUs' | 'cpuTimeUs'>;
};

export type RunRequest = {
  readonly language: 'bash' | 'python';
  readonly command: string;
  /** The guest ends the command after this; a Python cell may take two seconds to give way. */
  readonly timeoutMs: number;
  /** When the caller must have an answer, whatever the guest does. */
  readonly answerWithinMs: number;
  /** Nobody waits for the answer any more: the command is killed. */
  readonly abandoned?: AbortSignal;
};

const TIMED_OUT = 124;

/** @throws output_too_large, after ending the command; guest_unresponsive when it did not even begin; guest errors */
export async function runToEnd(guest: Guest, request: RunRequest, budget: OutputBudget): Promise<RunResult> {
  const stop = new AbortController();
  const startedAt = performance.now();
  const output = { stdout: new CollectedOutput(), stderr: new CollectedOutput() };
  const written = () => ({ stdout: output.stdout.pieces(), stderr: output.stderr.pieces() });
  let begun = false;
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    stop.abort();
  }, request.answerWithinMs);
  const abandon = (): void => stop.abort();
  if (request.abandoned?.aborted) abandon();
  request.abandoned?.addEventListener('abort', abandon);
  try {
    for await (const { event } of start(guest, request, stop.signal)) {
      begun = true;
      if (event.case === 'stdout' || event.case === 'stderr') {
        budget.take(event.value.length);
        output[event.case].add(event.value);
      } else if (event.case === 'exit') {
        return { ...written(), exit: event.value };
      }
    }
  } catch (error) {
    if (!late) throw guestError(error);
    if (!begun) throw new InstaVMError('guest_unresponsive', 'the sandbox did not begin the command in time');
    const wallTimeUs = BigInt(Math.round((performance.now() - startedAt) * 1000));
    return { ...written(), exit: { code: TIMED_OUT, timedOut: true, wallTimeUs, cpuTimeUs: 0n } };
  } finally {
    clearTimeout(timer);
    request.abandoned?.removeEventListener('abort', abandon);
    stop.abort();
  }
  throw new InstaVMError('guest_protocol', 'the guest ended the answer without an exit status');
}

function start(guest: Guest, request: RunRequest, signal: AbortSignal): AsyncIterable<ExecEvent> {
  const { command, timeoutMs } = request;
  if (request.language === 'python') return guest.agent.exec.runPython({ code: command, timeoutMs }, { signal });
  async function* messages() {
    yield { message: { case: 'start', value: { command: { case: 'script', value: command }, timeoutMs } } } as const;
  }
  return guest.agent.exec.run(messages(), { signal });
}

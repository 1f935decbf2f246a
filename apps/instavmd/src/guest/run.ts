/** Runs a command or a Python cell to its end and collects what it wrote. */
import type { ExecEvent, ExecExit } from '@instavm/agent-client';
import { InstaVMError } from '@instavm/wire';
import { guestError } from './errors.ts';
import type { Guest } from './guest.ts';

/** Output is collected in memory here; more than this belongs in a file or in a streaming exec. */
export const MAX_COLLECTED_BYTES = 256 * 1024 * 1024;

export type RunResult = { readonly stdout: Buffer; readonly stderr: Buffer; readonly exit: ExecExit };

export type RunRequest = { readonly language: 'bash' | 'python'; readonly command: string; readonly timeoutMs: number };

/** @throws output_too_large, after ending the command; guest errors */
export async function runToEnd(guest: Guest, request: RunRequest): Promise<RunResult> {
  const stop = new AbortController();
  const output = { stdout: [] as Uint8Array[], stderr: [] as Uint8Array[] };
  let collected = 0;
  try {
    for await (const { event } of start(guest, request, stop.signal)) {
      if (event.case === 'stdout' || event.case === 'stderr') {
        collected += event.value.length;
        if (collected > MAX_COLLECTED_BYTES) {
          throw new InstaVMError(
            'output_too_large',
            `the command wrote more than ${MAX_COLLECTED_BYTES} bytes and was ended`,
          );
        }
        output[event.case].push(event.value);
      } else if (event.case === 'exit') {
        return { stdout: Buffer.concat(output.stdout), stderr: Buffer.concat(output.stderr), exit: event.value };
      }
    }
  } catch (error) {
    throw guestError(error);
  } finally {
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

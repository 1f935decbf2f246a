/** The two ways a command of the Agents SDK runs: with pipes, or as the program of a terminal of its own. */
import type { Pty } from '../pty.ts';
import type { Sandbox } from '../sandbox.ts';
import type { ProcessContext } from './processes.ts';

export type RunningCommand = {
  /** Of a terminal: everything, as it is shown. */
  readonly stdout: AsyncIterable<Uint8Array>;
  readonly stderr?: AsyncIterable<Uint8Array>;
  /** @returns the exit code */
  wait(): Promise<number>;
  /** Ends it. Idempotent; never rejects, for what cannot be told ends with the sandbox. */
  end(): Promise<void>;
  /** Only of a terminal. */
  type?(chars: string): Promise<void>;
  resize?(cols: number, rows: number): Promise<void>;
};

/** @throws InstaVMError */
export async function runPiped(
  sandbox: Sandbox,
  argv: readonly string[],
  context: ProcessContext,
): Promise<RunningCommand> {
  const exec = await sandbox.exec(argv, context);
  const { stdout, stderr } = exec;
  const wait = async (): Promise<number> => (await exec.wait()).exitCode;
  return { stdout, stderr, wait, end: async () => exec.close() };
}

/** The command is the terminal's own program, so that its end and its exit code are the terminal's. @throws InstaVMError */
export async function runInTerminal(
  sandbox: Sandbox,
  argv: readonly string[],
  { cwd, env, user }: ProcessContext,
): Promise<RunningCommand> {
  const pty: Pty = await sandbox.pty.create({ argv, cwd, env, user });
  return {
    stdout: pty.output,
    wait: async () => (await pty.wait()).exitCode,
    end: () => pty.kill().catch(() => pty.detach()),
    type: (chars) => pty.write(chars),
    resize: (cols, rows) => pty.resize(cols, rows),
  };
}

/** One command in a sandbox: its streams are this program's, and so is its exit code. */
import { once } from 'node:events';
import { Command } from 'commander';
import type { Exec } from 'instavm';
import { assignment, integer } from '../arguments.ts';
import { clientOf, sandboxOf } from '../connect.ts';
import { printJson } from '../output.ts';

type Options = { cwd?: string; user?: string; env?: Record<string, string>; timeout?: number; json?: boolean };

export const execCommand = new Command('exec')
  .description("run a command; its output, and its exit code, are this command's")
  .argument('<id>', 'sandbox or VM')
  .argument('<command...>', 'program and arguments')
  .passThroughOptions()
  .option('--cwd <path>', 'working directory')
  .option('--user <name>', 'user name or number (default: root)')
  .option('--env <NAME=value>', 'environment; repeatable', assignment)
  .option('--timeout <seconds>', 'end it after this long, with exit code 124', integer(1, 86_400))
  .option('--json', 'output and exit code as JSON, at the end')
  .action(async (id: string, words: string[], options: Options, command: Command) => {
    const argv = words[0] === '--' ? words.slice(1) : words;
    const { cwd, user, env, timeout, json } = options;
    const sandbox = await sandboxOf(clientOf(command), id);
    const timeoutMs = timeout === undefined ? undefined : timeout * 1000;
    const given = { cwd, user, env, timeoutMs };
    if (json) {
      const { stdoutText, stderrText, exitCode, signal, timedOut } = await sandbox.run(argv, given);
      printJson({ stdout: stdoutText, stderr: stderrText, exit_code: exitCode, signal, timed_out: timedOut });
      process.exitCode = exitCode;
      return;
    }
    const stdin = !process.stdin.isTTY;
    const exec = await sandbox.exec(argv, { ...given, stdin });
    process.on('SIGINT', () => exec.kill('SIGINT')).on('SIGTERM', () => exec.kill('SIGTERM'));
    if (stdin) feed(exec).catch(() => {});
    await Promise.all([copy(exec.stdout, process.stdout), copy(exec.stderr, process.stderr)]);
    process.exitCode = (await exec.wait()).exitCode;
    process.stdin.destroy();
  });

/** A command that ends does not need the rest of its input. */
async function feed(exec: Exec): Promise<void> {
  for await (const chunk of process.stdin) await exec.writeStdin(chunk as Buffer);
  exec.closeStdin();
}

async function copy(from: AsyncIterable<Uint8Array>, to: NodeJS.WriteStream): Promise<void> {
  for await (const chunk of from) if (!to.write(chunk)) await once(to, 'drain');
}

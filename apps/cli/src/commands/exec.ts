/** One command in a sandbox: its streams are this program's, and so is its exit code. */
import { once } from 'node:events';
import { Command } from 'commander';
import type { Exec } from 'instavm';
import { assignment, duration } from '../arguments.ts';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';

type Options = {
  cwd?: string;
  user?: string;
  env?: Record<string, string>;
  timeout?: number;
  json?: boolean;
  detach?: boolean;
};

const DAY = 86_400;

export const execCommand = new Command('exec')
  .description("run a command; its streams, and its exit code, are this command's")
  .argument('<sandbox>', 'id, VM or name')
  .argument('<command...>', 'program and arguments')
  .passThroughOptions()
  .option('--cwd <path>', 'working directory')
  .option('--user <name>', 'user name or number (default: root)')
  .option('--env <NAME=value>', 'environment; repeatable', assignment)
  .option('--timeout <time>', 'end it after this long (90s, 15m), with exit code 124', duration(DAY))
  .option('-d, --detach', 'run it in the background, on a terminal whose name is printed: see logs, and shell --attach')
  .option('--json', 'output and exit code as JSON, at the end')
  .addHelpText(
    'after',
    help({
      notes:
        'The exit code is that of the program, 128 + signal when one ended it; 127 when there is no such program, 125 when this command failed.',
      json: '{ stdout, stderr, exitCode, signal, timedOut, wallTimeMs, cpuTimeMs }, or { terminal } with --detach',
      examples: [
        'exec 3f2a uname -a',
        "exec --cwd /srv 3f2a sh -c 'make && ./run'",
        'exec 3f2a tar xz < sources.tar.gz',
      ],
    }),
  )
  .action(async (id: string, words: string[], options: Options, command: Command) => {
    const argv = words[0] === '--' ? words.slice(1) : words;
    const [program = ''] = words;
    if (/^--?\w/.test(program))
      command.error(`error: ${program} goes before the sandbox: instavm exec ${program} … ${id}`);
    if (argv.length === 0) command.error("error: missing required argument 'command'");
    const { cwd, user, env, timeout, json } = options;
    const sandbox = await sandboxOf(clientOf(command), id);
    if (options.detach) {
      if (timeout !== undefined) command.error('error: --timeout is not for --detach');
      const pty = await sandbox.pty.create({ argv, cwd, user, env, lingerSeconds: 0 });
      pty.detach();
      if (json) return printJson({ terminal: pty.id });
      console.log(pty.id);
      // Beside the name, which alone goes into a pipe.
      console.error(`What it writes: npx instavm logs ${sandbox.id} ${pty.id} --follow`);
      return;
    }
    const timeoutMs = timeout === undefined ? undefined : timeout * 1000;
    const stdin = !process.stdin.isTTY;
    const exec = await sandbox.exec(argv, { cwd, user, env, timeoutMs, stdin });
    process.on('SIGINT', () => exec.kill('SIGINT')).on('SIGTERM', () => exec.kill('SIGTERM'));
    if (stdin) feed(exec).catch(() => {});
    if (json) {
      const [stdout, stderr, result] = await Promise.all([text(exec.stdout), text(exec.stderr), exec.wait()]);
      printJson({ stdout, stderr, ...result });
    } else {
      await Promise.all([copy(exec.stdout, process.stdout), copy(exec.stderr, process.stderr)]);
    }
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

async function text(from: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of from) chunks.push(chunk);
  return Buffer.concat(chunks).toString('utf8');
}

/** A terminal in a sandbox, on this terminal. */
import { Command, Option } from 'commander';
import type { Pty, PtyNotice, Sandbox } from 'instavm';
import { assignment, escapeCharacter, integer } from '../../arguments.ts';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { LocalTerminal } from '../../local-terminal.ts';
import { relay } from '../../relay.ts';
import { lsCommand } from './ls.ts';
import { rmCommand } from './rm.ts';

type Options = {
  attach?: string;
  id?: string;
  offset?: number;
  readOnly?: boolean;
  user?: string;
  cwd?: string;
  shell?: string;
  env?: Record<string, string>;
  linger: number;
  escape?: string;
};

const DAY = 86_400;

export const shellCommand = new Command('shell')
  .summary('open a terminal in a sandbox')
  .description(
    'Open a terminal in a sandbox: a login shell, or the command that is given. It outlives its connection and its window.',
  )
  .usage('[options] <sandbox> [-- command...] | ls | rm')
  .argument('<sandbox>', 'id, VM or name')
  .argument('[command...]', 'program and arguments, after --')
  .option('--attach <terminal>', 'come back to a terminal that is there')
  .option('--offset <n>', 'with --attach: begin at this byte of its output', integer(0, Number.MAX_SAFE_INTEGER))
  .option('--read-only', 'with --attach: watch without typing')
  .option('--id <name>', 'the id of the new terminal')
  .option('--user <name>', 'user name or number (default: root)')
  .option('--cwd <path>', 'working directory')
  .option('--shell <path>', 'login shell to run (default: /bin/bash)')
  .option('--env <NAME=value>', 'environment; repeatable', assignment)
  .addOption(
    new Option('--linger <seconds>', 'how long it lives when nobody is attached; 0 is for good')
      .argParser(integer(0, DAY))
      .default(DAY, 'a day'),
  )
  .addOption(
    new Option('--escape <char>', 'at the beginning of a line, followed by ".", detaches; "none" for no escape')
      .argParser(escapeCharacter)
      .default('~'),
  )
  .addHelpText(
    'after',
    help({
      notes:
        'Detach with Enter ~ . or by closing the window, and come back with --attach. The exit code is that of the program, 128 + signal when one ended it; 125 when this command failed.',
      examples: ['shell 3f2a', 'shell 3f2a -- python3 -i', ['shell 3f2a --attach build', 'come back']],
    }),
  )
  .action(async (id: string, argv: string[], options: Options, command: Command) => {
    const sandbox = await sandboxOf(clientOf(command), id);
    const terminal = new LocalTerminal();
    const onNotice = (notice: PtyNotice): void => {
      if (notice.type === 'disconnected') terminal.note('connection lost; attaching again …');
      if (notice.type === 'reattached') terminal.note('attached again');
    };
    const pty = await open(sandbox, argv, options, terminal, onNotice);
    const readOnly = options.readOnly ?? false;
    const end = await relay(pty, terminal, { readOnly, escapeCharacter: options.escape });
    if (end === 'detached') {
      console.error(`Detached. Come back with: npx instavm shell ${sandbox.id} --attach ${pty.id}`);
      return;
    }
    process.exitCode = end.exitCode;
    // Its exit code is told: nothing is left to come back for. One that another command made is that command's to forget.
    if (options.attach === undefined) await pty.kill();
  })
  .addCommand(lsCommand)
  .addCommand(rmCommand);

async function open(
  sandbox: Sandbox,
  argv: string[],
  options: Options,
  terminal: LocalTerminal,
  onNotice: (notice: PtyNotice) => void,
): Promise<Pty> {
  const { attach, offset, readOnly, id, user, cwd, shell, env, linger } = options;
  if (attach === undefined) {
    const what = argv.length > 0 ? { argv } : { shell };
    const { TERM } = process.env;
    const environment = { ...(TERM && terminal.size ? { TERM } : {}), ...env };
    const { size } = terminal;
    const own = { ...what, id, user, cwd, env: environment, lingerSeconds: linger, ...size };
    const pty = await sandbox.pty.create({ ...own, onNotice });
    await fit(pty, terminal, size);
    return pty;
  }
  const pty = await sandbox.pty.attach(attach, { offset, readOnly, onNotice });
  if (!readOnly) await fit(pty, terminal, undefined);
  return pty;
}

/** Makes it as large as the window, which may be resized meanwhile. @param known the size that it has */
async function fit(pty: Pty, terminal: LocalTerminal, known: LocalTerminal['size']): Promise<void> {
  let told = known;
  for (let { size } = terminal; size && (size.cols !== told?.cols || size.rows !== told.rows); { size } = terminal) {
    told = size;
    await pty.resize(size.cols, size.rows);
  }
}

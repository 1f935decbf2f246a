import { Command } from 'commander';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { age, printable, printJson, table } from '../../output.ts';

export const lsCommand = new Command('ls')
  .description('list the terminals of a sandbox')
  .argument('<sandbox>', 'id, VM or name')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, alive, pid, exitCode, signal, cols, rows, argv, user, startOffset, endOffset, viewers, lingerSeconds, createdAt }[]',
      examples: ['shell ls 3f2a'],
    }),
  )
  .action(async (id: string, { json }: { json?: boolean }, command: Command) => {
    const ptys = await (await sandboxOf(clientOf(command), id)).pty.list();
    if (json) return printJson(ptys);
    const rows = ptys.map((pty) => [
      ...[pty.id, pty.alive ? 'running' : `exited ${pty.exitCode}`, `${pty.cols}x${pty.rows}`],
      ...[String(pty.viewers), pty.user, age(pty.createdAt), printable(pty.argv.join(' ')).slice(0, 200)],
    ]);
    const header = ['TERMINAL', 'STATE', 'SIZE', 'VIEWERS', 'USER', 'AGE', 'COMMAND'];
    console.log(table(header, rows, { cut: ['COMMAND'], spare: ['SIZE', 'USER', 'VIEWERS'] }));
  });

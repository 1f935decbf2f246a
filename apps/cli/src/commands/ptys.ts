import { Command } from 'commander';
import { clientOf, sandboxOf } from '../connect.ts';
import { age, printable, printJson, table } from '../output.ts';

export const ptysCommand = new Command('ptys')
  .description('list the terminals of a sandbox')
  .argument('<id>', 'sandbox or VM')
  .option('--kill <pty>', 'end this one instead')
  .option('--json', 'as JSON')
  .action(async (id: string, { kill, json }: { kill?: string; json?: boolean }, command: Command) => {
    const sandbox = await sandboxOf(clientOf(command), id);
    if (kill !== undefined) {
      await sandbox.pty.kill(kill);
      return json ? printJson({ killed: kill }) : console.log(`${kill} ended`);
    }
    const ptys = await sandbox.pty.list();
    if (json) return printJson(ptys);
    const rows = ptys.map((pty) => [
      ...[pty.id, pty.alive ? 'running' : `exited ${pty.exitCode}`, `${pty.cols}x${pty.rows}`],
      ...[String(pty.viewers), pty.user, age(pty.createdAt), printable(pty.argv.join(' ')).slice(0, 60)],
    ]);
    console.log(table(['PTY', 'STATE', 'SIZE', 'VIEWERS', 'USER', 'AGE', 'COMMAND'], rows));
  });

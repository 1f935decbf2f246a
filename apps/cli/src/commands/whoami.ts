import { Command } from 'commander';
import { whoIs } from '../account.ts';
import { connectionOf } from '../connect.ts';
import { help } from '../help.ts';
import { printable, printJson } from '../output.ts';

export const whoamiCommand = new Command('whoami')
  .description('show whose key is in use, and where')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ id, email, name, baseUrl }', examples: ['whoami'] }))
  .action(async ({ json }: { json?: boolean }, command: Command) => {
    const connection = connectionOf(command);
    const user = await whoIs(connection);
    if (json) return printJson({ ...user, baseUrl: connection.baseUrl });
    console.log(`${printable(user.name)} <${printable(user.email)}> at ${connection.baseUrl}`);
  });

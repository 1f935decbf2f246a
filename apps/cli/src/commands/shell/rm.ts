import { Command } from 'commander';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

export const rmCommand = new Command('rm')
  .description('end terminals, with what runs in them')
  .argument('<sandbox>', 'id, VM or name')
  .argument('<terminal...>', 'as ls lists them')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ ended: string[] }', examples: ['shell rm 3f2a build'] }))
  .action(async (id: string, terminals: string[], { json }: { json?: boolean }, command: Command) => {
    const { pty } = await sandboxOf(clientOf(command), id);
    for (const terminal of terminals) {
      // To end one that is not there is a success; a name that was mistyped is not.
      await pty.get(terminal);
      await pty.kill(terminal);
      if (!json) console.log(`${terminal} ended`);
    }
    if (json) printJson({ ended: terminals });
  });

import { Command } from 'commander';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';

export const rmCommand = new Command('rm')
  .description('end sandboxes')
  .argument('<sandbox...>', 'ids, VMs or names')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({ json: '{ ended: string[] }', examples: ['rm 3f2a', "rm $(instavm ls --json | jq -r '.[].id')"] }),
  )
  .action(async (ids: string[], { json }: { json?: boolean }, command: Command) => {
    const client = clientOf(command);
    const ended: string[] = [];
    for (const id of ids) {
      const sandbox = await sandboxOf(client, id);
      await sandbox.delete();
      ended.push(sandbox.id);
      if (!json) console.log(`${sandbox.id} ended`);
    }
    if (json) printJson({ ended });
  });

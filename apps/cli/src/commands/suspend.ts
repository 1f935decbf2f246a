import { Command } from 'commander';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';
import { SANDBOX_JSON } from './sandbox-json.ts';

export const suspendCommand = new Command('suspend')
  .description('keep memory, processes and disk of sandboxes, and free the host of them; any use wakes them')
  .argument('<sandbox...>', 'ids, VMs or names')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: `${SANDBOX_JSON}[]`, examples: ['suspend 3f2a'] }))
  .action(async (ids: string[], { json }: { json?: boolean }, command: Command) => {
    const client = clientOf(command);
    const done = [];
    for (const id of ids) {
      const sandbox = await sandboxOf(client, id);
      await sandbox.suspend();
      if (json) done.push(await sandbox.info());
      else console.log(`${sandbox.id} suspended`);
    }
    if (json) printJson(done);
  });

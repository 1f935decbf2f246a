import { Command } from 'commander';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';
import { SANDBOX_JSON } from './sandbox-json.ts';

export const resumeCommand = new Command('resume')
  .description('let suspended sandboxes go on')
  .argument('<sandbox...>', 'ids, VMs or names')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: `${SANDBOX_JSON}[]`, examples: ['resume 3f2a'] }))
  .action(async (ids: string[], { json }: { json?: boolean }, command: Command) => {
    const client = clientOf(command);
    const done = [];
    for (const id of ids) {
      const sandbox = await sandboxOf(client, id);
      await sandbox.resume();
      if (json) done.push(await sandbox.info());
      else console.log(`${sandbox.id} running`);
    }
    if (json) printJson(done);
  });

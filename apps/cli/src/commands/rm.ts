import { Command } from 'commander';
import { clientOf, sandboxOf } from '../connect.ts';
import { printJson } from '../output.ts';

export const rmCommand = new Command('rm')
  .description('end sandboxes')
  .argument('<id...>', 'sandboxes or VMs')
  .option('--json', 'as JSON')
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

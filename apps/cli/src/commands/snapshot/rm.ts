import { Command } from 'commander';
import { clientOf, snapshotOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

export const rmCommand = new Command('rm')
  .description('delete snapshots; sandboxes that began there go on')
  .argument('<snapshot...>', 'ids or names')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ deleted: string[] }', examples: ['snapshot rm ready'] }))
  .action(async (names: string[], { json }: { json?: boolean }, command: Command) => {
    const client = clientOf(command);
    const deleted: string[] = [];
    for (const name of names) {
      const { id } = await snapshotOf(client, name);
      await client.snapshots.delete(id);
      deleted.push(id);
      if (!json) console.log(`${id} deleted`);
    }
    if (json) printJson({ deleted });
  });

import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

export const rmCommand = new Command('rm')
  .description('revoke shares, at once and for good: a port that is shared again gets another address')
  .argument('<share...>', 'as ls lists them')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ revoked: string[] }', examples: ['share rm <share>'] }))
  .action(async (ids: string[], { json }: { json?: boolean }, command: Command) => {
    const { shares } = clientOf(command);
    for (const id of ids) {
      await shares.revoke(id);
      if (!json) console.log(`${id} revoked`);
    }
    if (json) printJson({ revoked: ids });
  });

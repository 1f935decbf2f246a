import { Command } from 'commander';
import { integer } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

const one = integer(1, Number.MAX_SAFE_INTEGER);

export const rmCommand = new Command('rm')
  .description('revoke keys, at once and for good, with what is open by them')
  .argument('<key...>', 'as ls lists them', (text: string, before: number[] = []) => [...before, one(text)])
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ revoked: number[] }', examples: ['keys rm 7'] }))
  .action(async (ids: number[], { json }: { json?: boolean }, command: Command) => {
    const { keys } = clientOf(command);
    for (const id of ids) {
      await keys.revoke(id);
      if (!json) console.log(`${id} revoked`);
    }
    if (json) printJson({ revoked: ids });
  });

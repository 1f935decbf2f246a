import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { domainId } from './shared.ts';

export const rmCommand = new Command('rm')
  .description('delete custom domains with their certificates; the share stays')
  .argument('<domain...>', 'numbers, as ls lists them', (text: string, before: number[] = []) => [
    ...before,
    domainId(text),
  ])
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ deleted: number[] }', examples: ['domain rm 3'] }))
  .action(async (ids: number[], { json }: { json?: boolean }, command: Command) => {
    const { domains } = clientOf(command);
    for (const id of ids) {
      await domains.delete(id);
      if (!json) console.log(`${id} deleted`);
    }
    if (json) printJson({ deleted: ids });
  });

import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { setCommand } from './set.ts';
import { printQuotas, QUOTAS_JSON } from './shared.ts';

export const quotaCommand = new Command('quota')
  .summary('how much the account may have, and what it has')
  .description('How much the account may have and ask for, and what it has.')
  .usage('[options] | set')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: QUOTAS_JSON, examples: ['quota', 'quota set ann@example.com sandboxes=5'] }))
  .action(async ({ json }: { json?: boolean }, command: Command) => {
    printQuotas(await clientOf(command).quotas.get(), json);
  })
  .addCommand(setCommand);

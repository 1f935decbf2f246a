import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson, table } from '../../output.ts';

export const ratesCommand = new Command('rates')
  .description('what use costs')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ perVcpuHour, perMemoryGibHour, perStorageGibHour, perEgressGib }, in dollars',
      examples: ['credit rates'],
    }),
  )
  .action(async ({ json }: { json?: boolean }, command: Command) => {
    const rates = await clientOf(command).credit.rates();
    if (json) return printJson(rates);
    const rows = [
      ['vCPU of a running sandbox', `$${rates.perVcpuHour} an hour`],
      ['GiB of its memory', `$${rates.perMemoryGibHour} an hour`],
      ['GiB of snapshots and suspended sandboxes', `$${rates.perStorageGibHour} an hour`],
      ['GiB sent', `$${rates.perEgressGib}`],
    ];
    console.log(table(['WHAT', 'COSTS'], rows));
  });

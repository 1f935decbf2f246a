import { Command } from 'commander';
import type { Usage } from 'instavm';
import { integer } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { dollars, printJson, table } from '../../output.ts';

export const usageCommand = new Command('usage')
  .description('what each day (UTC) was used and cost')
  .option('--days <number>', 'how many, today the last', integer(1, 366), 30)
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ totals, days: { date, … }[] }, each with costDollars, vcpuHours, memoryGibHours, storageGibHours and egressGib',
      examples: ['credit usage --days 7'],
    }),
  )
  .action(async ({ days, json }: { days: number; json?: boolean }, command: Command) => {
    const usage = await clientOf(command).credit.usage(days);
    if (json) return printJson(usage);
    const rows = usage.days
      .filter(({ costDollars, vcpuHours, storageGibHours }) => costDollars + vcpuHours + storageGibHours > 0)
      .map((day) => [day.date, ...cells(day)]);
    const header = ['DAY', 'COST', 'VCPU HOURS', 'MEMORY GIB HOURS', 'STORED GIB HOURS', 'SENT GIB'];
    console.log(table(header, [...rows, ['all', ...cells(usage.totals)]]));
  });

const cells = ({ costDollars, vcpuHours, memoryGibHours, storageGibHours, egressGib }: Usage): string[] => [
  dollars(costDollars),
  ...[vcpuHours, memoryGibHours, storageGibHours, egressGib].map((amount) => amount.toFixed(3)),
];

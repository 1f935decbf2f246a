import { Command, Option } from 'commander';
import type { CreditPeriod } from 'instavm';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { dollars, printJson } from '../../output.ts';
import { addCommand } from './add.ts';
import { ratesCommand } from './rates.ts';
import { usageCommand } from './usage.ts';

export const creditCommand = new Command('credit')
  // Else its --json would take that of the commands below it.
  .enablePositionalOptions()
  .summary('what the account has left, and what it used')
  .description('What the account has left, what runs now included.')
  .usage('[options] | usage | rates | add')
  .addOption(
    new Option('--period <period>', 'what counts as used')
      .choices(['current_month', 'last_30_days', 'all'] satisfies CreditPeriod[])
      .default('current_month'),
  )
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ allocated, used, remaining, overage, isEnforced }, in dollars',
      examples: ['credit', 'credit --period all'],
    }),
  )
  .action(async ({ period, json }: { period: CreditPeriod; json?: boolean }, command: Command) => {
    const balance = await clientOf(command).credit.balance(period);
    if (json) return printJson(balance);
    const { remaining, used, overage, isEnforced } = balance;
    console.log(`left  ${dollars(remaining)}\nused  ${dollars(used)}`);
    if (overage > 0) console.log(`more than was given  ${dollars(overage)}`);
    if (!isEnforced) console.error('This server counts, and stops nobody (INSTAVM_CREDIT=off).');
    else if (remaining === 0) console.error('Sandboxes stay suspended until there is more: npx instavm credit add');
  })
  .addCommand(usageCommand)
  .addCommand(ratesCommand)
  .addCommand(addCommand);

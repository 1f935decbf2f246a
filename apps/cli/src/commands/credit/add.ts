import { Command, InvalidArgumentError } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { dollars, printJson } from '../../output.ts';

type Options = { account?: string; note?: string; id?: string; json?: boolean };

function amount(text: string): number {
  const value = Number(text);
  if (!/^-?\d+(\.\d{1,6})?$/.test(text) || Math.abs(value) > 1e6)
    throw new InvalidArgumentError('It takes dollars, such as 25 or 0.50.');
  return value;
}

export const addCommand = new Command('add')
  .description('give credit to an account; for the administrator of the server')
  .argument('<dollars>', 'how much', amount)
  .option('--account <email>', 'e-mail address or id (default: your own)')
  .option('--note <text>', 'for the record')
  .option('--id <id>', 'of the payment, say: the same one is granted once')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ accountId, email, remaining }',
      examples: ['credit add 25 --account ann@example.com --note paid'],
    }),
  )
  .action(async (value: number, { json, ...options }: Options, command: Command) => {
    const granted = await clientOf(command).credit.grant(value, options);
    if (json) return printJson(granted);
    console.log(`${granted.email} has ${dollars(granted.remaining)} left`);
  });

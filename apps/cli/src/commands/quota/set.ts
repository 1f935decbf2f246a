import { Command, InvalidArgumentError } from 'commander';
import type { QuotaChanges } from 'instavm';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printQuotas, QUOTAS, QUOTAS_JSON } from './shared.ts';

const MOST = 1e9;

function change(text: string, before: QuotaChanges = {}): QuotaChanges {
  const [, typed = '', value = ''] = /^([a-z]+)=(\d{1,10}|default)$/.exec(text) ?? [];
  const [name] = QUOTAS[typed] ?? [];
  if (name === undefined || Number(value) > MOST)
    throw new InvalidArgumentError(`It takes NAME=NUMBER or NAME=default, with ${Object.keys(QUOTAS).join(', ')}.`);
  return { ...before, [name]: value === 'default' ? null : Number(value) };
}

export const setCommand = new Command('set')
  .description('change what an account may have, from the next request on; for the administrator of the server')
  .argument('<account>', 'e-mail address or id')
  .argument('<change...>', 'such as sandboxes=5, or sandboxes=default for what the server says', change)
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: QUOTAS_JSON,
      examples: ['quota set ann@example.com sandboxes=5 memory=4096', 'quota set ann@example.com requests=default'],
    }),
  )
  .action(async (account: string, changes: QuotaChanges, { json }: { json?: boolean }, command: Command) => {
    printQuotas(await clientOf(command).quotas.set(account, changes), json);
  });

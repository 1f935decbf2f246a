import { Command, Option } from 'commander';
import { duration } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { DEFAULT_WAIT_SECONDS, domainId, LONGEST_WAIT_SECONDS, refuseFailed } from './shared.ts';

type Options = { wait?: boolean; timeout: number; json?: boolean };

export const verifyCommand = new Command('verify')
  .description('have the TXT record looked for, and a certificate ordered')
  .argument('<domain>', 'number, as ls lists them', domainId)
  .option('--wait', 'until the certificate is there')
  .addOption(
    new Option('--timeout <duration>', 'with --wait, how long')
      .argParser(duration(LONGEST_WAIT_SECONDS))
      .default(DEFAULT_WAIT_SECONDS, '10m'),
  )
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, domain, shareId, status, url, error, records, createdAt, issuedAt }',
      examples: ['domain verify 3 --wait'],
    }),
  )
  .action(async (id: number, { wait, timeout, json }: Options, command: Command) => {
    const { domains } = clientOf(command);
    const verified = await domains.verify(id);
    refuseFailed(verified);
    const domain = wait ? await domains.waitUntilIssued(id, { timeoutMs: timeout * 1_000 }) : verified;
    if (json) return printJson(domain);
    console.log(domain.status === 'issued' ? domain.url : `${domain.domain} is ${domain.status}`);
    if (domain.status !== 'issued') console.error(`To see it through: npx instavm domain wait ${id}`);
  });

import { Command, Option } from 'commander';
import { duration } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { DEFAULT_WAIT_SECONDS, domainId, LONGEST_WAIT_SECONDS } from './shared.ts';

type Options = { timeout: number; json?: boolean };

export const waitCommand = new Command('wait')
  .description('wait until the certificate of a domain that is being verified is there')
  .argument('<domain>', 'number, as ls lists them', domainId)
  .addOption(
    new Option('--timeout <duration>', 'how long')
      .argParser(duration(LONGEST_WAIT_SECONDS))
      .default(DEFAULT_WAIT_SECONDS, '10m'),
  )
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, domain, shareId, status, url, error, records, createdAt, issuedAt }',
      examples: ['domain wait 3 --timeout 1200'],
    }),
  )
  .action(async (id: number, { timeout, json }: Options, command: Command) => {
    const domain = await clientOf(command).domains.waitUntilIssued(id, { timeoutMs: timeout * 1_000 });
    if (json) return printJson(domain);
    console.log(domain.url);
  });

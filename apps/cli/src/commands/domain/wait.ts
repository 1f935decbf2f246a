import { Command } from 'commander';
import { duration } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { printJson } from '../../output.ts';
import { DEFAULT_WAIT_SECONDS, domainId, LONGEST_WAIT_SECONDS } from './shared.ts';

type Options = { timeout: number; json?: boolean };

export const waitCommand = new Command('wait')
  .description('wait until the certificate of a domain that is being verified is there')
  .argument('<domain>', 'number, as ls lists them', domainId)
  .option('--timeout <duration>', 'how long (default: 10m)', duration(LONGEST_WAIT_SECONDS), DEFAULT_WAIT_SECONDS)
  .option('--json', 'as JSON')
  .action(async (id: number, { timeout, json }: Options, command: Command) => {
    const domain = await clientOf(command).domains.waitUntilIssued(id, { timeoutMs: timeout * 1_000 });
    if (json) return printJson(domain);
    console.log(domain.url);
  });

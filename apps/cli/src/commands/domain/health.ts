import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printable, printJson, table } from '../../output.ts';
import { domainId, recordsTable } from './shared.ts';

const yes = (is: boolean): string => (is ? 'yes' : 'no');

export const healthCommand = new Command('health')
  .description('show a domain, its DNS records and its certificate, and whether the server answers for it')
  .argument('<domain>', 'number, as ls lists them', domainId)
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, domain, shareId, status, url, error, records, createdAt, issuedAt, certPresent, keyPresent, certExpiresAt, proxyActive }',
      examples: ['domain health 3'],
    }),
  )
  .action(async (id: number, { json }: { json?: boolean }, command: Command) => {
    const domain = await clientOf(command).domains.health(id);
    if (json) return printJson(domain);
    const { certPresent, keyPresent, proxyActive, certExpiresAt } = domain;
    const rows = [
      ['status', domain.status],
      ['certificate', certExpiresAt ? `${yes(certPresent)}, until ${certExpiresAt.toISOString()}` : yes(certPresent)],
      ['key', yes(keyPresent)],
      ['server answers', yes(proxyActive)],
      ...(domain.error ? [['error', printable(domain.error.message)]] : []),
    ];
    console.log(`${table(['DOMAIN', domain.url], rows)}\n\n${recordsTable(domain)}`);
  });

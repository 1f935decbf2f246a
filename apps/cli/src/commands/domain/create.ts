import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { recordsTable } from './shared.ts';

type Options = { dnsProvider?: string; json?: boolean };

export const createCommand = new Command('create')
  .description('name the domain and the share; prints the DNS records to set')
  .argument('<share>', 'as share ls lists them')
  .argument('<domain>', 'host name, such as app.example.com')
  .option('--dns-provider <name>', 'who serves the DNS of the domain: kept as a note')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, domain, shareId, status, url, error, records, createdAt, issuedAt }',
      examples: ['domain create <share> app.example.com'],
    }),
  )
  .action(async (shareId: string, name: string, { dnsProvider, json }: Options, command: Command) => {
    const domain = await clientOf(command).domains.create({ shareId, domain: name, dnsProvider });
    if (json) return printJson(domain);
    console.log(`Domain ${domain.id}, ${domain.domain}, is ${domain.status}.`);
    if (domain.status === 'issued') return console.log(domain.url);
    console.log(recordsTable(domain));
    console.error(
      `Set these records in the DNS of the domain, then run: npx instavm domain verify ${domain.id} --wait`,
    );
  });

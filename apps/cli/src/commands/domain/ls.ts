import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { age, printJson, table } from '../../output.ts';

export const lsCommand = new Command('ls')
  .description('list custom domains, newest first')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, domain, shareId, status, url, error, records, createdAt, issuedAt }[]',
      examples: ['domain ls'],
    }),
  )
  .action(async ({ json }: { json?: boolean }, command: Command) => {
    const domains = await clientOf(command).domains.list();
    if (json) return printJson(domains);
    const rows = domains.map((domain) => [
      ...[String(domain.id), domain.status, domain.shareId, age(domain.createdAt), domain.url],
    ]);
    console.log(table(['DOMAIN', 'STATUS', 'SHARE', 'AGE', 'URL'], rows));
  });

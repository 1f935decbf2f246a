import { Command } from 'commander';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { age, printJson, table } from '../../output.ts';

export const lsCommand = new Command('ls')
  .description('list what is shared, newest first')
  .argument('[sandbox]', 'only of this one (id, VM or name)')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, sandboxId, port, url, isPublic, rewriteHost, createdAt }[]',
      examples: ['share ls', 'share ls 3f2a'],
    }),
  )
  .action(async (id: string | undefined, { json }: { json?: boolean }, command: Command) => {
    const client = clientOf(command);
    const shares = await (id === undefined ? client : await sandboxOf(client, id)).shares.list();
    if (json) return printJson(shares);
    const rows = shares.map((share) => [
      ...[share.id, share.sandboxId, String(share.port), share.isPublic ? 'public' : 'private'],
      ...[age(share.createdAt), share.url],
    ]);
    console.log(table(['SHARE', 'SANDBOX', 'PORT', 'OPEN TO', 'AGE', 'URL'], rows));
  });

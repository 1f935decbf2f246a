import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { age, printable, printJson, table } from '../../output.ts';

export const lsCommand = new Command('ls')
  .description('list keys, newest first')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, name, description, prefix, scope, sandboxMetadata, createdAt, lastUsedAt, expiresAt }[]',
      examples: ['keys ls'],
    }),
  )
  .action(async ({ json }: { json?: boolean }, command: Command) => {
    const keys = await clientOf(command).keys.list();
    if (json) return printJson(keys);
    const rows = keys.map(({ id, name, prefix, scope, sandboxMetadata, createdAt, lastUsedAt, expiresAt }) => [
      ...[String(id), printable(name), `${prefix}…`, scope],
      sandboxMetadata === null ? 'all' : printable(JSON.stringify(sandboxMetadata)),
      ...[age(createdAt), lastUsedAt === null ? 'never' : `${age(lastUsedAt)} ago`],
      expiresAt === null ? 'never' : expiresAt.toISOString().slice(0, 16).replace('T', ' '),
    ]);
    console.log(
      table(['KEY', 'NAME', 'BEGINS', 'SCOPE', 'SANDBOXES', 'AGE', 'LAST USED', 'EXPIRES (UTC)'], rows, {
        spare: ['AGE', 'BEGINS'],
        cut: ['SANDBOXES', 'NAME'],
      }),
    );
  });

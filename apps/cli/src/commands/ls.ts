import { Command } from 'commander';
import { clientOf } from '../connect.ts';
import { help } from '../help.ts';
import { age, printable, printJson, table } from '../output.ts';
import { SANDBOX_JSON } from './sandbox-json.ts';

export const lsCommand = new Command('ls')
  .description('list sandboxes, newest first')
  .option('-a, --all', 'also those that have ended')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: `${SANDBOX_JSON}[]`, examples: ['ls', "ls --json | jq -r '.[].id'"] }))
  .action(async ({ all, json }: { all?: boolean; json?: boolean }, command: Command) => {
    const shown = await clientOf(command).sandboxes.list(all ? {} : { ended: false });
    if (json) return printJson(shown);
    const rows = shown.map(({ id, state, incarnationId, memoryMb, vcpuCount, createdAt, metadata: { name } }) => [
      ...[id, state, incarnationId ?? '', `${memoryMb} MiB`, String(vcpuCount), age(createdAt)],
      typeof name === 'string' ? printable(name) : '',
    ]);
    console.log(
      table(['SANDBOX', 'STATE', 'VM', 'MEMORY', 'VCPUS', 'AGE', 'NAME'], rows, {
        spare: ['VM', 'VCPUS', 'MEMORY'],
        cut: ['NAME'],
      }),
    );
    if (rows.length === 0 && process.stderr.isTTY) console.error('There is none. Make one with: npx instavm new');
  });

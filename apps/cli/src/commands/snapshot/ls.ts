import { Command } from 'commander';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { age, printable, printJson, size, table } from '../../output.ts';
import { SNAPSHOT_JSON } from '../sandbox-json.ts';

export const lsCommand = new Command('ls')
  .description('list snapshots, newest first')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: `${SNAPSHOT_JSON}[]`, examples: ['snapshot ls'] }))
  .action(async ({ json }: { json?: boolean }, command: Command) => {
    const snapshots = await clientOf(command).snapshots.list();
    if (json) return printJson(snapshots);
    const rows = snapshots.map(({ id, name, status, memoryMb, vcpuCount, sizeBytes, createdAt }) => [
      ...[id, printable(name), status, `${memoryMb} MiB`, String(vcpuCount), size(sizeBytes), age(createdAt)],
    ]);
    const header = ['SNAPSHOT', 'NAME', 'STATUS', 'MEMORY', 'VCPUS', 'SIZE', 'AGE'];
    console.log(table(header, rows, { spare: ['VCPUS', 'MEMORY', 'STATUS'], cut: ['NAME'] }));
  });

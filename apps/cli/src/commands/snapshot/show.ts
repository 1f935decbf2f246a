import { Command } from 'commander';
import { clientOf, snapshotOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printable, printJson, size, table } from '../../output.ts';
import { SNAPSHOT_JSON } from '../sandbox-json.ts';

export const showCommand = new Command('show')
  .description('everything about a snapshot')
  .argument('<snapshot>', 'id or name')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: SNAPSHOT_JSON, examples: ['snapshot show ready'] }))
  .action(async (name: string, { json }: { json?: boolean }, command: Command) => {
    const snapshot = await snapshotOf(clientOf(command), name);
    if (json) return printJson(snapshot);
    const rows = [
      ['id', snapshot.id],
      ['name', printable(snapshot.name)],
      ['status', snapshot.error === null ? snapshot.status : `${snapshot.status}: ${printable(snapshot.error)}`],
      ['machine', `${snapshot.memoryMb} MiB, ${snapshot.vcpuCount} vCPUs`],
      ['on the disk', size(snapshot.sizeBytes)],
      ['taken', snapshot.createdAt.toISOString()],
    ];
    console.log(table(['WHAT', 'VALUE'], rows));
  });

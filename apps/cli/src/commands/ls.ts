import { Command } from 'commander';
import { clientOf } from '../connect.ts';
import { age, printJson, table } from '../output.ts';

export const lsCommand = new Command('ls')
  .description('list sandboxes, newest first')
  .option('-a, --all', 'also those that have ended')
  .option('--json', 'as JSON')
  .action(async ({ all, json }: { all?: boolean; json?: boolean }, command: Command) => {
    const sandboxes = await clientOf(command).sandboxes.list();
    const shown = all ? sandboxes : sandboxes.filter(({ incarnationId, expiresAt }) => incarnationId && expiresAt);
    if (json) return printJson(shown);
    const rows = shown.map(({ id, state, incarnationId, memoryMb, vcpuCount, createdAt }) => [
      ...[id, state, incarnationId ?? '', `${memoryMb} MiB`, String(vcpuCount), age(createdAt)],
    ]);
    console.log(table(['SANDBOX', 'STATE', 'VM', 'MEMORY', 'VCPUS', 'AGE'], rows));
  });

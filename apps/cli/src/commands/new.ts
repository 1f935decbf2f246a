import { Command } from 'commander';
import { assignment, integer } from '../arguments.ts';
import { clientOf } from '../connect.ts';
import { printJson } from '../output.ts';

type Options = {
  memory?: number;
  vcpus?: 1 | 2 | 4 | 6 | 8;
  ttl?: number;
  env?: Record<string, string>;
  json?: boolean;
};

export const newCommand = new Command('new')
  .description('make a sandbox and print its id')
  .option('--memory <MiB>', 'rounded up to the next size', integer(128, 8192))
  .option('--vcpus <n>', '1, 2, 4, 6 or 8', integer(1, 8))
  .option('--ttl <seconds>', 'lifetime (default: 3600)', integer(20, 86_400), 3600)
  .option('--env <NAME=value>', 'environment of every command; repeatable', assignment)
  .option('--json', 'everything about it, as JSON')
  .action(async ({ memory, vcpus, ttl, env, json }: Options, command: Command) => {
    const client = clientOf(command);
    const sandbox = await client.sandboxes.create({ memoryMb: memory, vcpuCount: vcpus, ttlSeconds: ttl, env });
    if (json) printJson(await sandbox.info());
    else console.log(sandbox.id);
  });

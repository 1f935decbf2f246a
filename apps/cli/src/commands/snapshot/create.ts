import { Command } from 'commander';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { SNAPSHOT_JSON } from '../sandbox-json.ts';

export const createCommand = new Command('create')
  .description('take a snapshot and print its id; the sandbox stands still for that time')
  .argument('<sandbox>', 'id, VM or name; running or suspended')
  .option('--name <name>', 'to find it by')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: SNAPSHOT_JSON, examples: ['snapshot create 3f2a --name ready'] }))
  .action(async (id: string, { name, json }: { name?: string; json?: boolean }, command: Command) => {
    const snapshot = await (await sandboxOf(clientOf(command), id)).snapshot(name);
    if (json) return printJson(snapshot);
    console.log(snapshot.id);
    // Beside the id, which alone goes into a pipe.
    console.error(`Begin there with: npx instavm new --snapshot ${snapshot.id}`);
  });

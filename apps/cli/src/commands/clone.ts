import { Command } from 'commander';
import { integer } from '../arguments.ts';
import { clientOf, sandboxOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';
import { unlessInterrupted } from '../unclaimed.ts';
import { SANDBOX_JSON } from './sandbox-json.ts';

const MOST = 32;

export const cloneCommand = new Command('clone')
  .description('make sandboxes that begin where one is now, with its memory, processes and files; print their ids')
  .argument('<sandbox>', 'id, VM or name; running or suspended')
  .option('-n, --count <n>', 'how many, all from the same moment', integer(1, MOST), 1)
  .option('--json', 'everything about them, as JSON')
  .addHelpText('after', help({ json: `${SANDBOX_JSON}[]`, examples: ['clone 3f2a', 'clone 3f2a --count 4'] }))
  .action(async (id: string, { count, json }: { count: number; json?: boolean }, command: Command) => {
    const sandbox = await sandboxOf(clientOf(command), id);
    const clones = await unlessInterrupted(sandbox.forks(count), (made) =>
      Promise.all(made.map((clone) => clone.delete())),
    );
    if (json) return printJson(await Promise.all(clones.map((clone) => clone.info())));
    for (const clone of clones) console.log(clone.id);
  });

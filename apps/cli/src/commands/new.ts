import { Command, Option } from 'commander';
import { assignment, duration, integer, oneOf } from '../arguments.ts';
import { clientOf, snapshotOf } from '../connect.ts';
import { help } from '../help.ts';
import { printJson } from '../output.ts';
import { unlessInterrupted } from '../unclaimed.ts';
import { SANDBOX_JSON } from './sandbox-json.ts';

type Options = {
  memory?: number;
  vcpus?: 1 | 2 | 4 | 6 | 8;
  ttl: number;
  env?: Record<string, string>;
  metadata?: Record<string, string>;
  name?: string;
  snapshot?: string;
  autoSuspend?: boolean;
  idleSuspend?: number;
  json?: boolean;
};

/** Far beyond what a sandbox takes whose template is there. */
const PATIENCE_MS = 3_000;
/** The server's own. */
const SHORTEST = 20;
const VCPUS = [1, 2, 4, 6, 8] as const;
const HOUR = 3_600;
const DAY = 24 * HOUR;

export const newCommand = new Command('new')
  .description('make a sandbox and print its id')
  .option('--memory <MiB>', 'rounded up to the next size', integer(128, 8192))
  .option('--vcpus <n>', '1, 2, 4, 6 or 8', oneOf(VCPUS))
  .addOption(
    new Option('--ttl <time>', 'lifetime, such as 90s, 15m, 2h').argParser(duration(DAY, SHORTEST)).default(HOUR, '1h'),
  )
  .option('--env <NAME=value>', 'environment of every command; repeatable', assignment)
  .option('--name <name>', 'what lists call it, and commands find it by; kept in its metadata')
  .option('--metadata <name=value>', 'kept with it; repeatable', assignment)
  .option('--snapshot <snapshot>', 'begin there: id or name; the size is that of the snapshot')
  .option('--auto-suspend', 'suspend it at the end of its lifetime instead of ending it')
  .option('--idle-suspend <time>', 'suspend it when nothing has used it for so long', duration(DAY))
  .option('--json', 'everything about it, as JSON')
  .addHelpText(
    'after',
    help({
      json: SANDBOX_JSON,
      examples: [
        'new --name research --ttl 2h --idle-suspend 10m',
        'new --snapshot ready --env DEBUG=1',
        'shell research',
      ],
    }),
  )
  .action(async (options: Options, command: Command) => {
    const { memory, vcpus, ttl, env, metadata, name, snapshot, autoSuspend, idleSuspend, json } = options;
    const client = clientOf(command);
    const snapshotId = snapshot === undefined ? undefined : (await snapshotOf(client, snapshot)).id;
    const patience = setTimeout(() => {
      if (process.stderr.isTTY) console.error('The first sandbox of a size takes longer: its template is made …');
    }, PATIENCE_MS);
    const asked = client.sandboxes.create({
      memoryMb: memory,
      vcpuCount: vcpus,
      ttlSeconds: ttl,
      env,
      metadata: name === undefined ? metadata : { ...metadata, name },
      snapshotId,
      autoSuspend,
      idleSuspendSeconds: idleSuspend,
    });
    const sandbox = await unlessInterrupted(asked, (made) => made.delete()).finally(() => clearTimeout(patience));
    if (json) printJson(await sandbox.info());
    else console.log(sandbox.id);
  });

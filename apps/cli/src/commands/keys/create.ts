import { Command, Option } from 'commander';
import type { KeyScope } from 'instavm';
import { assignment, duration } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

const TEN_YEARS = 3_650 * 86_400;

type Options = {
  description?: string;
  scope: KeyScope;
  metadata?: Record<string, string>;
  ttl?: number;
  json?: boolean;
};

export const createCommand = new Command('create')
  .description('make a key and show its secret, this once')
  .argument('[name]', 'what it is for', 'API key')
  .option('--description <text>', 'more about it')
  .addOption(
    new Option('--scope <scope>', 'what it may do')
      .choices(['read', 'run', 'full'] satisfies KeyScope[])
      .default('full'),
  )
  .option('--metadata <name=value>', 'only for sandboxes with this in their metadata; repeatable', assignment)
  .option('--ttl <duration>', 'how long: 12h, 30d (default: for ever)', duration(TEN_YEARS))
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, name, description, prefix, scope, sandboxMetadata, createdAt, lastUsedAt, expiresAt, secret }',
      examples: ['keys create ci --scope run --ttl 30d'],
    }),
  )
  .action(async (name: string, { description, scope, metadata, ttl, json }: Options, command: Command) => {
    if (metadata && scope === 'full') command.error('error: --metadata goes with --scope run or --scope read');
    const expiresAt = ttl === undefined ? undefined : new Date(Date.now() + ttl * 1000);
    const key = await clientOf(command).keys.create({ name, description, scope, sandboxMetadata: metadata, expiresAt });
    if (json) return printJson(key);
    console.log(key.secret);
    // Beside the secret, which alone goes into a pipe.
    console.error(`Key ${key.id}. It is not shown again; keep it where only those who need it can read it.`);
  });

import { Command } from 'commander';
import { duration, integer } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

const WEEK = 7 * 86_400;

export const rotateCommand = new Command('rotate')
  .description('a new secret for the same key, shown this once; the old one ends with what is open by it')
  .argument('<key>', 'as ls lists them', integer(1, Number.MAX_SAFE_INTEGER))
  .option('--grace <duration>', 'how long the old secret still works: 15m, 2h (default: not at all)', duration(WEEK))
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, name, description, prefix, scope, sandboxMetadata, createdAt, lastUsedAt, expiresAt, secret }',
      examples: ['keys rotate 7 --grace 15m'],
    }),
  )
  .action(async (id: number, { grace, json }: { grace?: number; json?: boolean }, command: Command) => {
    const key = await clientOf(command).keys.rotate(id, { graceSeconds: grace });
    if (json) return printJson(key);
    console.log(key.secret);
    console.error(`The new secret of key ${key.id} (${key.name}). It is not shown again.`);
  });

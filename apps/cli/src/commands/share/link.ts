import { Command } from 'commander';
import { duration } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { printJson } from '../../output.ts';

const HOUR = 3_600;
const WEEK = 7 * 24 * HOUR;

export const linkCommand = new Command('link')
  .description('a link that opens a private share in a browser for a while')
  .argument('<share>', 'as ls lists them')
  .option('--ttl <duration>', 'how long: 90s, 15m, 2h, 7d (default: 1h)', duration(WEEK), HOUR)
  .option('--json', 'as JSON')
  .action(async (id: string, { ttl, json }: { ttl: number; json?: boolean }, command: Command) => {
    const link = await clientOf(command).shares.link(id, { ttlSeconds: ttl });
    if (json) return printJson(link);
    console.log(link.url);
    console.error(`Whoever has it may open it until ${link.expiresAt.toLocaleString()}; share rm ends it before.`);
  });

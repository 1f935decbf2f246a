import { Command, Option } from 'commander';
import { duration } from '../../arguments.ts';
import { clientOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';

const HOUR = 3_600;
const WEEK = 7 * 24 * HOUR;

type Options = { ttl: number; revoke?: string; json?: boolean };

/** The token in a link begins with the id. */
const idOf = (link: string): string => /[?&]instavm_token=(lnk\w+)\./.exec(link)?.[1] ?? link;

export const linkCommand = new Command('link')
  .description('a link that opens a private share in a browser for a while, or one such link taken back')
  .argument('<share>', 'as ls lists them')
  .addOption(new Option('--ttl <duration>', 'how long: 90s, 15m, 2h, 7d').argParser(duration(WEEK)).default(HOUR, '1h'))
  .option('--revoke <link>', 'take that one back instead: the link itself, or its id; ends whoever is in through it')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({ json: '{ id, url, expiresAt }; { revoked } with --revoke', examples: ['share link <share> --ttl 2h'] }),
  )
  .action(async (id: string, { ttl, revoke, json }: Options, command: Command) => {
    if (revoke !== undefined) {
      const link = idOf(revoke);
      await clientOf(command).shares.revokeLink(id, link);
      return json ? printJson({ revoked: link }) : console.log(`${link} revoked`);
    }
    const link = await clientOf(command).shares.link(id, { ttlSeconds: ttl });
    if (json) return printJson(link);
    console.log(link.url);
    console.error(
      `Whoever has it may open it until ${link.expiresAt.toLocaleString()}. To take it back before: npx instavm share link ${id} --revoke ${link.id}`,
    );
  });

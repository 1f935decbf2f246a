import { Command } from 'commander';
import { integer } from '../../arguments.ts';
import { clientOf, sandboxOf } from '../../connect.ts';
import { help } from '../../help.ts';
import { printJson } from '../../output.ts';
import { linkCommand } from './link.ts';
import { lsCommand } from './ls.ts';
import { rmCommand } from './rm.ts';

type Options = { public?: boolean; private?: boolean; rewriteHost?: boolean; json?: boolean };

export const shareCommand = new Command('share')
  // Else its --json would take that of ls, rm and link.
  .enablePositionalOptions()
  .summary('give a port of a sandbox an HTTPS address')
  .description(
    'Give a port of a sandbox an HTTPS address, the same one each time until it is removed. Without --public only links and API keys open it.',
  )
  .usage('[options] <sandbox> <port> | ls | rm | link')
  .argument('<sandbox>', 'id, VM or name')
  .argument('<port>', 'where a program in it listens, or will', integer(1, 65_535))
  .option('--public', 'open to anyone who knows the address')
  .option('--private', 'open to links and API keys only, and cut off who came in before')
  .option('--rewrite-host', 'tell the program that it is localhost:<port>, for one that answers to no other name')
  .option('--no-rewrite-host', 'tell it the name that visitors use')
  .option('--json', 'as JSON')
  .addHelpText(
    'after',
    help({
      json: '{ id, sandboxId, port, url, isPublic, rewriteHost, createdAt }',
      examples: ['share 3f2a 8000', ['share link <share> --ttl 2h', 'show a private page to somebody']],
    }),
  )
  .action(async (id: string, port: number, options: Options, command: Command) => {
    if (options.public && options.private) command.error('error: it is either --public or --private');
    const isPublic = options.public ? true : options.private ? false : undefined;
    const share = await (await sandboxOf(clientOf(command), id)).shares.create({
      port,
      isPublic,
      rewriteHost: options.rewriteHost,
    });
    if (options.json) return printJson(share);
    console.log(share.url);
    // Beside the address, which alone goes into a pipe.
    console.error(
      share.isPublic
        ? 'Anyone who knows it may open it. To close it: npx instavm share --private, or share rm'
        : `Private. For a link that opens it: npx instavm share link ${share.id}`,
    );
  })
  .addCommand(lsCommand)
  .addCommand(rmCommand)
  .addCommand(linkCommand);

import { Command, Option } from 'commander';
import { InstaVMError } from 'instavm';
import { bytes } from '../arguments.ts';
import { clientOf, sandboxOf } from '../connect.ts';
import { download } from '../copy/download.ts';
import { type Place, placeOf } from '../copy/place.ts';
import type { Copied, CopyOptions } from '../copy/result.ts';
import { upload } from '../copy/upload.ts';
import { help } from '../help.ts';
import { printable, printJson } from '../output.ts';

type Options = { user?: string; limit: number; json?: boolean };

/** As many links are named as fit on a line. */
const MOST_NAMED = 3;
const LIMIT_BYTES = 16 * 1024 ** 3;

export const cpCommand = new Command('cp')
  .summary('copy files and directories to and from a sandbox')
  .description('Copy files, and directories with all that is in them, to or from a sandbox.')
  .usage('[options] <source...> <destination>')
  .argument(
    '<place...>',
    'sources, and last the destination: paths, SANDBOX:/path, or - for standard input or output; into a directory that is there it goes by the same name',
  )
  .option('--user <name>', 'as whom in the sandbox (default: root)')
  .addOption(
    new Option('--limit <size>', 'take no more than this from a sandbox, such as 500m or 4g')
      .argParser(bytes)
      .default(LIMIT_BYTES, '16g'),
  )
  .addOption(new Option('-r, --recursive', 'directories are copied whole without it').hideHelp())
  .option('--json', 'what was copied as JSON')
  .addHelpText(
    'after',
    help({
      notes:
        'Permissions (here, as far as your umask allows) and times of modification are kept, also of a directory that is made for it; owners and set-user-id bits are not: what is copied belongs to whoever copies, in a sandbox to root or --user. A file appears complete or not at all. Symbolic links in a directory stay links; those that lead out of it are not taken from a sandbox. A directory to standard output is a tar archive.',
      json: '{ from, to, entries, sizeBytes, leftOut: string[] }[]',
      examples: [
        'cp report.csv 3f2a:/root/',
        'cp src 3f2a:/srv',
        ['cp 3f2a:/srv/out/. results', 'what is in the directory'],
        'cp 3f2a:/var/log/syslog - | less',
        ['cp a1b2:/f - | instavm cp - 3f2a:/f', 'from one sandbox to another'],
      ],
    }),
  )
  .action(async (texts: string[], { user, limit, json }: Options, command: Command) => {
    const places = texts.map(placeOf);
    const destination = places.pop();
    if (destination === undefined || places.length === 0)
      command.error("error: missing required argument 'destination'");
    const options = { user, limitBytes: limit, asDirectory: places.length > 1 };
    const client = clientOf(command);
    const copied: Copied[] = [];
    for (const place of places) {
      const one = await copy(place, destination, options);
      const names = one.leftOut.slice(0, MOST_NAMED).map(printable).join(', ');
      const more = one.leftOut.length > MOST_NAMED ? ', …' : '';
      if (one.leftOut.length > 0)
        console.error(`Left out, because they lead out of ${one.from}: ${names}${more} (links: ${one.leftOut.length})`);
      copied.push(one);
    }
    if (json) printJson(copied);

    async function copy(from: Place, to: Place, asked: CopyOptions): Promise<Copied> {
      if (from.kind === 'sandbox' && to.kind !== 'sandbox')
        return download(await sandboxOf(client, from.sandbox), from.path, to, asked);
      if (from.kind !== 'sandbox' && to.kind === 'sandbox')
        return upload(from, await sandboxOf(client, to.sandbox), to.path, asked);
      throw new InstaVMError('invalid_argument', 'one side of a copy is a sandbox, and the other is not', {
        hint: 'Such as: instavm cp notes.txt 3f2a:/root/ (a sandbox by its id, with a colon and a path from /)',
      });
    }
  });

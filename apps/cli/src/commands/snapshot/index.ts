import { Command } from 'commander';
import { help } from '../../help.ts';
import { createCommand } from './create.ts';
import { lsCommand } from './ls.ts';
import { rmCommand } from './rm.ts';
import { showCommand } from './show.ts';

export const snapshotCommand = new Command('snapshot')
  .summary('keep a moment of a sandbox, to begin others there')
  .description(
    'Keep a moment of a sandbox (memory, processes, terminals and disk), and begin any number of others there.',
  )
  .addHelpText('after', help({ examples: ['snapshot create 3f2a --name ready', 'new --snapshot ready'] }))
  .addCommand(createCommand)
  .addCommand(lsCommand)
  .addCommand(showCommand)
  .addCommand(rmCommand);

import { Command } from 'commander';
import { createCommand } from './create.ts';
import { lsCommand } from './ls.ts';
import { rmCommand } from './rm.ts';
import { rotateCommand } from './rotate.ts';

export const keysCommand = new Command('keys')
  .summary('API keys of the account')
  .description('API keys of the account. It takes a key with the scope full.')
  .addCommand(createCommand)
  .addCommand(lsCommand)
  .addCommand(rotateCommand)
  .addCommand(rmCommand);

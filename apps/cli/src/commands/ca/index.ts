import { Command } from 'commander';
import { installCommand } from './install.ts';
import { pathCommand } from './path.ts';

export const caCommand = new Command('ca')
  .description('trust the certificates of previews, where the server has no certificate of its own for them')
  .addCommand(pathCommand)
  .addCommand(installCommand);

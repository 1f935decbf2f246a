import { Command } from 'commander';
import { help } from '../../help.ts';
import { createCommand } from './create.ts';
import { healthCommand } from './health.ts';
import { lsCommand } from './ls.ts';
import { rmCommand } from './rm.ts';
import { verifyCommand } from './verify.ts';
import { waitCommand } from './wait.ts';

export const domainCommand = new Command('domain')
  .summary('lead a host name of your own to a share')
  .description(
    'Lead a host name of your own to a share: create it, set the DNS records that are printed, then verify it. A certificate comes by itself.',
  )
  .addHelpText('after', help({ examples: ['domain create <share> app.example.com', 'domain verify 3 --wait'] }))
  .addCommand(createCommand)
  .addCommand(lsCommand)
  .addCommand(verifyCommand)
  .addCommand(waitCommand)
  .addCommand(healthCommand)
  .addCommand(rmCommand);

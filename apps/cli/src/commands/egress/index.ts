import { Command } from 'commander';
import { getCommand } from './get.ts';
import { logCommand } from './log.ts';
import { setCommand } from './set.ts';
import { testCommand } from './test.ts';

export const egressCommand = new Command('egress')
  .description('what a sandbox may reach outside, and what it tried to')
  .addCommand(getCommand)
  .addCommand(setCommand)
  .addCommand(logCommand)
  .addCommand(testCommand);

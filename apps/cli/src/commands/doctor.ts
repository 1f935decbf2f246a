import { Command } from 'commander';
import { help } from '../help.ts';
import { runInWorkspace } from '../workspace.ts';

export const doctorCommand = new Command('doctor')
  .description('what this machine has and lacks to run sandboxes; exit code 1 when something that is needed is missing')
  .option('--json', 'as JSON')
  .addHelpText('after', help({ json: '{ name, status, found, fix }[]', examples: ['doctor'] }))
  .action(async ({ json }: { json?: boolean }) => {
    process.exitCode = await runInWorkspace('doctor', json ? ['--json'] : []);
  });

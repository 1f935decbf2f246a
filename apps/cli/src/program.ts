/** The commands of `instavm`, and what they have in common. */
import { styleText } from 'node:util';
import { Command } from 'commander';
import { caCommand } from './commands/ca/index.ts';
import { cloneCommand } from './commands/clone.ts';
import { completeCommand, completionCommand } from './commands/completion.ts';
import { cpCommand } from './commands/cp.ts';
import { creditCommand } from './commands/credit/index.ts';
import { dashboardCommand } from './commands/dashboard.ts';
import { doctorCommand } from './commands/doctor.ts';
import { domainCommand } from './commands/domain/index.ts';
import { egressCommand } from './commands/egress/index.ts';
import { eventsCommand } from './commands/events.ts';
import { execCommand } from './commands/exec.ts';
import { inviteCommand } from './commands/invite.ts';
import { keysCommand } from './commands/keys/index.ts';
import { loginCommand } from './commands/login.ts';
import { logsCommand } from './commands/logs.ts';
import { lsCommand } from './commands/ls.ts';
import { newCommand } from './commands/new.ts';
import { quotaCommand } from './commands/quota/index.ts';
import { resumeCommand } from './commands/resume.ts';
import { rmCommand } from './commands/rm.ts';
import { serveCommand } from './commands/serve.ts';
import { shareCommand } from './commands/share/index.ts';
import { shellCommand } from './commands/shell/index.ts';
import { snapshotCommand } from './commands/snapshot/index.ts';
import { suspendCommand } from './commands/suspend.ts';
import { whoamiCommand } from './commands/whoami.ts';
import { help } from './help.ts';

const GROUPS: Readonly<Record<string, readonly Command[]>> = {
  'Sandboxes:': [newCommand, lsCommand, rmCommand, cloneCommand, suspendCommand, resumeCommand, snapshotCommand],
  'In a sandbox:': [execCommand, shellCommand, logsCommand, cpCommand],
  'To and from a sandbox:': [egressCommand, shareCommand, domainCommand, caCommand],
  'Account:': [
    loginCommand,
    whoamiCommand,
    dashboardCommand,
    keysCommand,
    creditCommand,
    quotaCommand,
    inviteCommand,
    eventsCommand,
  ],
  'This machine:': [serveCommand, doctorCommand, completionCommand],
};

export const program = new Command('instavm')
  .description('Sandboxes in microVMs, from the command line.')
  .option(
    '--api-key <key>',
    'default: INSTAVM_API_KEY, else that of your login, else that of the daemon on this machine',
  )
  .option('--base-url <url>', 'default: INSTAVM_BASE_URL, else that of your login, else http://127.0.0.1:8787')
  .enablePositionalOptions()
  .exitOverride()
  .configureHelp({
    subcommandTerm: (command) => command.name(),
    styleTitle: (title) => styleText('bold', title),
    // On narrow terminals too.
    minWidthToWrap: 16,
  })
  .addHelpText(
    'after',
    help({
      notes:
        'A sandbox is named by its id, by the first characters of it, or by the id of its VM. With --json every command prints one JSON object or array, and those that go on print one a line; errors are JSON on standard error then.',
      examples: ['new --ttl 2h', ['exec 3f2a uname -a', 'the first characters of an id are enough'], 'shell 3f2a'],
    }),
  );
for (const [heading, commands] of Object.entries(GROUPS)) {
  program.commandsGroup(heading);
  for (const command of commands) program.addCommand(command);
}
program.addCommand(completeCommand, { hidden: true });
program.addHelpCommand(new Command('help').description('the help of a command').argument('[command]'));
program.showHelpAfterError('See: npx instavm --help');
inherit(program);

/** Commander gives a command what its parent has only when the parent makes it. */
function inherit(parent: Command): void {
  for (const command of parent.commands) {
    command.copyInheritedSettings(parent).helpCommand(false);
    command.showHelpAfterError(`See: npx ${pathOf(command)} --help`);
    inherit(command);
  }
}

/** Like `instavm egress set`. */
export function pathOf(command: Command): string {
  return command.parent === null ? command.name() : `${pathOf(command.parent)} ${command.name()}`;
}

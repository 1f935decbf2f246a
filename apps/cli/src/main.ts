/** The program: its commands, and how every failure ends. */
import { Command } from 'commander';
import { InstaVMError } from 'instavm';
import { caCommand } from './commands/ca/index.ts';
import { creditCommand } from './commands/credit/index.ts';
import { dashboardCommand } from './commands/dashboard.ts';
import { domainCommand } from './commands/domain/index.ts';
import { egressCommand } from './commands/egress/index.ts';
import { eventsCommand } from './commands/events.ts';
import { execCommand } from './commands/exec.ts';
import { inviteCommand } from './commands/invite.ts';
import { keysCommand } from './commands/keys/index.ts';
import { loginCommand } from './commands/login.ts';
import { lsCommand } from './commands/ls.ts';
import { newCommand } from './commands/new.ts';
import { ptyCommand } from './commands/pty.ts';
import { ptysCommand } from './commands/ptys.ts';
import { rmCommand } from './commands/rm.ts';
import { shareCommand } from './commands/share/index.ts';
import { whoamiCommand } from './commands/whoami.ts';

const program = new Command('instavm')
  .description('Sandboxes in microVMs, from the command line.')
  .option(
    '--api-key <key>',
    'default: INSTAVM_API_KEY, else that of your login, else that of the daemon on this machine',
  )
  .option('--base-url <url>', 'default: INSTAVM_BASE_URL, else that of your login, else http://127.0.0.1:8787')
  .enablePositionalOptions()
  .showHelpAfterError('Add --help for what the command takes.');
for (const command of [
  newCommand,
  lsCommand,
  rmCommand,
  execCommand,
  ptyCommand,
  ptysCommand,
  egressCommand,
  shareCommand,
  caCommand,
  domainCommand,
  loginCommand,
  whoamiCommand,
  dashboardCommand,
  inviteCommand,
  keysCommand,
  creditCommand,
  eventsCommand,
])
  program.addCommand(command);

// A reader of the output that has gone, such as head(1), is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(0);
  throw error;
});

try {
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof InstaVMError)) throw error;
  console.error(`instavm: ${error.message}`);
  if (error.hint !== undefined) console.error(error.hint);
  process.exitCode = 1;
}

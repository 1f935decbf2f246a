/** The program: its commands, and how every failure ends. */
import { Command } from 'commander';
import { InstaVMError } from 'instavm';
import { caCommand } from './commands/ca/index.ts';
import { creditCommand } from './commands/credit/index.ts';
import { domainCommand } from './commands/domain/index.ts';
import { egressCommand } from './commands/egress/index.ts';
import { execCommand } from './commands/exec.ts';
import { keysCommand } from './commands/keys/index.ts';
import { lsCommand } from './commands/ls.ts';
import { newCommand } from './commands/new.ts';
import { ptyCommand } from './commands/pty.ts';
import { ptysCommand } from './commands/ptys.ts';
import { rmCommand } from './commands/rm.ts';
import { shareCommand } from './commands/share/index.ts';

const program = new Command('instavm')
  .description('Sandboxes in microVMs, from the command line.')
  .option('--api-key <key>', 'default: INSTAVM_API_KEY, else the key of the daemon on this machine')
  .option('--base-url <url>', 'default: INSTAVM_BASE_URL, else http://127.0.0.1:8787')
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
  keysCommand,
  creditCommand,
  caCommand,
  domainCommand,
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

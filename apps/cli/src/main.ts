/** The program: runs one command, and says how every failure ends. */
import { styleText } from 'node:util';
import { type Command, CommanderError } from 'commander';
import { InstaVMError } from 'instavm';
import { EXIT, exitCodeOf } from './exit-codes.ts';
import { hintOf } from './hints.ts';
import { printable } from './output.ts';
import { pathOf, program } from './program.ts';

let running: Command = program;
program.hook('preAction', (_, command) => {
  running = command;
});

// A reader of the output that has gone, such as head(1) or a window that was closed, is no error.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE' || error.code === 'EIO') process.exit();
    throw error;
  });

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : EXIT.usage;
  else if (error instanceof InstaVMError) fail(error);
  else throw error;
  // Whatever else would come in is for nobody, and whoever could write it is not waited for.
  process.stdin.destroy();
}

function fail(error: InstaVMError): void {
  process.exitCode = exitCodeOf(error, running.name());
  const { code, message, retryable, status, requestId } = error;
  const hint = hintOf(error, pathOf(running));
  if (running.opts<{ json?: boolean }>().json) {
    console.error(JSON.stringify({ error: { code, message, hint, retryable, status, requestId } }));
    return;
  }
  const stream = process.stderr;
  console.error(`${styleText('red', 'instavm:', { stream })} ${lines(message)}`);
  if (hint !== undefined) console.error(lines(hint));
}

/** It may quote what a sandbox said. */
function lines(text: string): string {
  return text.split('\n').map(printable).join('\n');
}

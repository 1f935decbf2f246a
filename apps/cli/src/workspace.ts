/** The server beside this program: the commands of the repository's package.json that it was started from. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import { resolve } from 'node:path';
import { InstaVMError } from 'instavm';

const LAUNCHER = resolve(import.meta.dirname, '../../../scripts/launch.mjs');

/**
 * Runs one of them with this program's streams, signals and environment.
 * @returns its exit code
 * @throws InstaVMError `not_available` where only the client is installed
 */
export async function runInWorkspace(
  name: 'start' | 'doctor',
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<number> {
  if (!existsSync(LAUNCHER))
    throw new InstaVMError('not_available', 'the server is not installed here: this is the client alone', {
      hint: 'Clone the repository of InstaVM on the machine that is to run sandboxes, and run: npm start',
    });
  const child = spawn(process.execPath, [LAUNCHER, name, ...args], {
    stdio: 'inherit',
    env: { ...process.env, ...environment },
  });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      // At a terminal, Ctrl-C reaches the whole foreground group, the child too.
      if (signal !== 'SIGINT' || !process.stdin.isTTY) child.kill(signal);
    });
  const [code, signal] = (await once(child, 'exit')) as [number | null, NodeJS.Signals | null];
  return signal === null ? (code ?? 1) : 128 + constants.signals[signal];
}

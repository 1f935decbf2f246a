/**
 * `npm start`: sets up what is missing, then becomes the daemon: the same process runs another program, with its environment, standard
 * streams and signals, so SIGTERM or Ctrl-C stops the daemon cleanly, and with nothing in memory of what setting up took.
 */
import { join } from 'node:path';
import { setup } from './steps/setup.ts';

await setup({ python: false });
const main = join(import.meta.dirname, '../apps/instavmd/src/main.mjs');
// Declared optional because Windows has none; `launch.mjs` starts nothing outside Linux.
process.execve?.(process.execPath, [process.execPath, ...process.execArgv, main], process.env);

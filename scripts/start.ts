/**
 * `npm start`: sets up what is missing, then becomes the daemon. The daemon keeps this process's environment, standard
 * streams and signals, so SIGTERM or Ctrl-C stops it cleanly.
 */
import { setup } from './steps/setup.ts';

await setup({ python: false });
await import('../apps/instavmd/src/main.ts');

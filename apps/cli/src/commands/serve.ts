import { Command } from 'commander';
import { help } from '../help.ts';
import { runInWorkspace } from '../workspace.ts';

type Options = { listen?: string; dataDir?: string };

export const serveCommand = new Command('serve')
  .description('set up what is missing on this machine, and run the server in the foreground until it is interrupted')
  .option('--listen <host:port>', 'default: INSTAVM_LISTEN, else 127.0.0.1:8787')
  .option('--data-dir <path>', 'default: INSTAVM_DATA_DIR, else ~/.local/share/instavm')
  .addHelpText(
    'after',
    help({
      notes:
        'Everything else is set by the environment: docs/reference/configuration.md. The log is JSON lines on standard output. Sandboxes that run outlive it, and the next one takes them over.',
      examples: ['serve', 'serve --listen 127.0.0.1:9000 --data-dir /srv/instavm'],
    }),
  )
  .action(async ({ listen, dataDir }: Options) => {
    process.exitCode = await runInWorkspace('start', [], {
      ...(listen === undefined ? {} : { INSTAVM_LISTEN: listen }),
      ...(dataDir === undefined ? {} : { INSTAVM_DATA_DIR: dataDir }),
    });
  });

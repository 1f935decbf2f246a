/** Does what the command line asks, most often: runs the daemon. Failures that are for people are one sentence and what to do. */
import { InstaVMError } from '@instavm/wire';
import { parseCommandLine, USAGE } from './command-line.ts';
import { ConfigError, parseConfig, printConfig } from './config.ts';

/** EX_CONFIG of sysexits(3): it fails until somebody changes something, so a service manager need not try again. */
const NEEDS_SOMEBODY = 78;

try {
  const { command, configPath } = parseCommandLine(process.argv.slice(2));
  if (command.kind === 'help') process.stdout.write(USAGE);
  else if (command.kind === 'config print') process.stdout.write(printConfig(process.env, configPath));
  else {
    const config = parseConfig(process.env, configPath);
    const say = (sentence: string): void => console.error(`instavmd: ${sentence}`);
    if (command.kind === 'config check') console.log('the configuration is usable');
    else if (command.kind === 'backup')
      await (await import('./backup/backup.ts')).backUp(config, command.destination, command, say);
    else if (command.kind === 'restore') {
      const to = { dataDirectory: command.dataDirectory, cacheDirectory: config.INSTAVM_CACHE_DIR };
      await (await import('./backup/restore.ts')).restore(command.source, to, say);
    } else if (command.kind === 'templates' || command.kind === 'templates prune') {
      const commands = await import('./templates/commands.ts');
      const { listTemplatesCommand: list, pruneTemplatesCommand: prune } = commands;
      console.log(await (command.kind === 'templates' ? list(config, command) : prune(config, command)));
    } else await (await import('./serve.ts')).serve(config);
  }
} catch (error) {
  const isMistake = error instanceof ConfigError || (error as Error).name === 'MissingGuestImages';
  const isNamed = error instanceof InstaVMError;
  console.error(isMistake || isNamed ? `instavmd: ${(error as Error).message}` : error);
  if (isNamed) console.error(error.hint);
  const isRefusal = isNamed && (error.code === 'production_refused' || error.code === 'data_incompatible');
  process.exit(isMistake || isRefusal ? NEEDS_SOMEBODY : 1);
}

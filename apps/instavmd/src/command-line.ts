/** What `instavmd` is asked to do. */
import { parseArgs } from 'node:util';
import { ConfigError } from './config.ts';

export const USAGE = `usage: instavmd [--config FILE]                          runs the daemon
       instavmd [--config FILE] config check             says what is wrong with the configuration
       instavmd [--config FILE] config print             what holds, and from where, without secrets
       instavmd [--config FILE] backup DEST [--without-templates]
                                                         makes the directory DEST, beside a running daemon or without one
       instavmd [--config FILE] restore SRC --data-dir DIR
                                                         makes the data directory DIR of a backup
`;

export type Command =
  | { readonly kind: 'serve' | 'config check' | 'config print' | 'help' }
  | { readonly kind: 'backup'; readonly destination: string; readonly withTemplates: boolean }
  | { readonly kind: 'restore'; readonly source: string; readonly dataDirectory: string };

export type CommandLine = {
  readonly command: Command;
  /** Undefined: as INSTAVM_CONFIG says. */
  readonly configPath: string | undefined;
};

/** @throws ConfigError with the usage */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const { values, positionals } = parsed(args);
  const configPath = values.config;
  return { command: values.help ? { kind: 'help' } : commandOf(positionals, values), configPath };
}

type Options = ReturnType<typeof parsed>['values'];

function commandOf(words: readonly string[], options: Options): Command {
  const text = words.join(' ');
  const [name, path, ...more] = words;
  const { 'data-dir': dataDirectory, 'without-templates': without } = options;
  if (name === 'backup' && path !== undefined && more.length === 0 && dataDirectory === undefined)
    return { kind: name, destination: path, withTemplates: without !== true };
  if (without !== undefined) throw new ConfigError(`--without-templates is for backup\n${USAGE}`);
  if (name === 'restore' && path !== undefined && more.length === 0 && dataDirectory !== undefined)
    return { kind: name, source: path, dataDirectory };
  if (dataDirectory !== undefined) throw new ConfigError(`--data-dir is for restore\n${USAGE}`);
  if (text === '') return { kind: 'serve' };
  if (text === 'config check' || text === 'config print') return { kind: text };
  throw new ConfigError(`there is no command "${text}"\n${USAGE}`);
}

function parsed(args: readonly string[]) {
  try {
    const options = {
      config: { type: 'string' },
      'data-dir': { type: 'string' },
      'without-templates': { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    } as const;
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}\n${USAGE}`);
  }
}

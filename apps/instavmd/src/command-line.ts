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
       instavmd [--config FILE] templates [--json]       the templates of the cache directory, and what needs them
       instavmd [--config FILE] templates prune [--dry-run] [--unrecorded] [--json]
                                                         removes those that nothing needs, beside running daemons or without
`;

export type Command =
  | { readonly kind: 'serve' | 'config check' | 'config print' | 'help' }
  | { readonly kind: 'backup'; readonly destination: string; readonly withTemplates: boolean }
  | { readonly kind: 'restore'; readonly source: string; readonly dataDirectory: string }
  | { readonly kind: 'templates'; readonly json: boolean }
  | {
      readonly kind: 'templates prune';
      readonly json: boolean;
      readonly dryRun: boolean;
      readonly unrecorded: boolean;
    };

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
type Option = Exclude<keyof Options, 'config' | 'help'>;

/** Which options belong to which command. */
const OWN_OPTIONS: Readonly<Record<string, readonly Option[]>> = {
  backup: ['without-templates'],
  restore: ['data-dir'],
  templates: ['json'],
  'templates prune': ['dry-run', 'json', 'unrecorded'],
};

function commandOf(words: readonly string[], options: Options): Command {
  const [name, path, ...more] = words;
  const takesPath = (name === 'backup' || name === 'restore') && path !== undefined && more.length === 0;
  const text = takesPath ? name : words.join(' ');
  for (const option of Object.keys(options)) {
    if (option === 'config' || (OWN_OPTIONS[text] as readonly string[] | undefined)?.includes(option)) continue;
    const commands = Object.keys(OWN_OPTIONS).filter((each) => OWN_OPTIONS[each]?.includes(option as Option));
    throw new ConfigError(`--${option} is for ${commands.join(' and ')}\n${USAGE}`);
  }
  const { 'data-dir': dataDirectory, 'without-templates': without, json = false, unrecorded = false } = options;
  if (takesPath && name === 'backup') return { kind: name, destination: path, withTemplates: without !== true };
  if (takesPath && name === 'restore' && dataDirectory !== undefined)
    return { kind: name, source: path, dataDirectory };
  if (text === '') return { kind: 'serve' };
  if (text === 'config check' || text === 'config print') return { kind: text };
  if (text === 'templates') return { kind: text, json };
  if (text === 'templates prune') return { kind: text, json, unrecorded, dryRun: options['dry-run'] ?? false };
  throw new ConfigError(`there is no command "${words.join(' ')}"\n${USAGE}`);
}

function parsed(args: readonly string[]) {
  try {
    const options = {
      config: { type: 'string' },
      'data-dir': { type: 'string' },
      'without-templates': { type: 'boolean' },
      'dry-run': { type: 'boolean' },
      unrecorded: { type: 'boolean' },
      json: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    } as const;
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}\n${USAGE}`);
  }
}

/** What `instavmd` is asked to do. */
import { parseArgs } from 'node:util';
import { ConfigError } from './config.ts';

export const USAGE = `usage: instavmd [--config FILE]                          runs the daemon
       instavmd [--config FILE] config check             says what is wrong with the configuration
       instavmd [--config FILE] config print             what holds, and from where, without secrets
`;

export type Command = { readonly kind: 'serve' | 'config check' | 'config print' | 'help' };

export type CommandLine = {
  readonly command: Command;
  /** Undefined: as INSTAVM_CONFIG says. */
  readonly configPath: string | undefined;
};

/** @throws ConfigError with the usage */
export function parseCommandLine(args: readonly string[]): CommandLine {
  const { values, positionals } = parsed(args);
  const configPath = values.config;
  return { command: values.help ? { kind: 'help' } : commandOf(positionals), configPath };
}

function commandOf(words: readonly string[]): Command {
  const text = words.join(' ');
  if (text === '') return { kind: 'serve' };
  if (text === 'config check' || text === 'config print') return { kind: text };
  throw new ConfigError(`there is no command "${text}"\n${USAGE}`);
}

function parsed(args: readonly string[]) {
  try {
    const options = { config: { type: 'string' }, help: { type: 'boolean', short: 'h' } } as const;
    return parseArgs({ args: [...args], options, allowPositionals: true });
  } catch (error) {
    throw new ConfigError(`${(error as Error).message}\n${USAGE}`);
  }
}

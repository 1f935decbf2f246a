/** What the help of a command says after its options: how it is used, and what it prints with --json. */
import { type Command, Help } from 'commander';

export type HelpTexts = {
  /** Command lines without the program's name; a second element says what it is for. */
  readonly examples?: readonly (string | readonly [command: string, purpose: string])[];
  /** What --json prints, in the notation of TypeScript. */
  readonly json?: string;
  readonly notes?: string;
};

/** For `addHelpText('after', …)`. */
export const help =
  ({ notes, json, examples = [] }: HelpTexts) =>
  ({ error, command }: { error: boolean; command: Command }): string => {
    const { getErrHelpWidth, getOutHelpWidth } = command.configureOutput();
    // As wide as the rest of the help is.
    const width = (error ? getErrHelpWidth?.() : getOutHelpWidth?.()) ?? DEFAULT_WIDTH;
    const wrapped = (text: string): string => new Help().boxWrap(text, width);
    const lines = examples.flatMap((example) => {
      const [line, purpose] = typeof example === 'string' ? [example, undefined] : example;
      return [...(purpose === undefined ? [] : [`  # ${purpose}`]), `  instavm ${line}`];
    });
    return [
      ...(notes === undefined ? [] : ['', wrapped(notes)]),
      ...(json === undefined ? [] : ['', wrapped(`JSON: ${json}`)]),
      ...(lines.length === 0 ? [] : ['', lines.length > 1 ? 'Examples:' : 'Example:', ...lines]),
    ].join('\n');
  };

const DEFAULT_WIDTH = 80;

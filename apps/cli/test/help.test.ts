/** What every command owes those who type it, and tables on terminals of every width. */
import { stripVTControlCharacters } from 'node:util';
import type { Command } from 'commander';
import stringWidth from 'string-width';
import { describe, expect, it } from 'vitest';
import { headerOf, rowOf, table } from '../src/output.ts';
import { program } from '../src/program.ts';

/** These are a terminal, a server and a script for a shell. */
const WITHOUT_JSON = new Set(['shell', 'serve', 'completion']);
const NOT_FOR_PEOPLE = new Set(['complete', 'help']);

function leaves(command: Command): Command[] {
  const below = command.commands.filter((one) => !NOT_FOR_PEOPLE.has(one.name())).flatMap(leaves);
  // One that does something itself, and has others below it, is both.
  return command.registeredArguments.length > 0 || below.length === 0 || command.options.length > 2
    ? [command, ...below]
    : below;
}

function helpOf(command: Command): string {
  let text = '';
  command.configureOutput({
    writeOut: (piece) => {
      text += piece;
    },
    getOutHelpWidth: () => 80,
  });
  command.outputHelp();
  return text;
}

describe('the help of a command', () => {
  const commands = leaves(program).filter((command) => command !== program);

  it.each(commands.map((command) => [command.name(), command] as const))(
    'of %s shows an example, and the shape of --json',
    (name, command) => {
      const text = helpOf(command);
      expect(text).toMatch(/\nExamples?:\n(.*\n)* {2}instavm /);
      if (WITHOUT_JSON.has(name)) return;
      expect(command.options.map(({ long }) => long)).toContain('--json');
      expect(text).toMatch(/\nJSON: (\{|one a line)/);
    },
  );
});

describe('a table', () => {
  const header = ['ID', 'STATE', 'COMMAND'];
  const rows = [
    ['0123456789', 'running', 'a rather long command line'],
    ['日本', 'ended', 'x'],
  ];
  const options = { spare: ['STATE'], cut: ['COMMAND'] };
  const lines = (width?: number) => table(header, rows, { ...options, width }).split('\n');

  it('aligns wide characters and cuts nothing where there is no terminal', () => {
    expect(lines()).toEqual([
      'ID          STATE    COMMAND',
      '0123456789  running  a rather long command line',
      '日本        ended    x',
    ]);
  });

  it('leaves spare columns out on a narrow terminal, then cuts what nobody copies, then shows rows as lines', () => {
    expect(lines(40)).toEqual(['ID          COMMAND', '0123456789  a rather long command line', '日本        x']);
    expect(lines(24)).toEqual(['ID          COMMAND', '0123456789  a rather lo…', '日本        x']);
    expect(lines(16)).toEqual([
      ...['ID       0123456789', 'STATE    running', 'COMMAND  a rather long command line', ''],
      ...['ID       日本', 'STATE    ended', 'COMMAND  x'],
    ]);
  });
});

describe('rows that come one at a time', () => {
  const columns = [
    ['TIME', 5],
    ['ID', 6],
    ['BY', 10, 4],
    ['WHAT', 12],
    ['WHY', 0, 6],
  ] as const;
  const cells = ['09:00', 'evt_1', 'Ada Lovelace', 'sandbox 3f2a', 'the guest did not answer'];
  const lines = (width?: number, row: readonly string[] = cells) => rowOf(columns, row, width).split('\n');

  it('are whole where there is no terminal, and longer cells move those behind them', () => {
    expect(lines()).toEqual(['09:00  evt_1   Ada Lovelace  sandbox 3f2a  the guest did not answer']);
    expect(lines(undefined, ['09:00', 'evt_1', '日本', '', ''])).toEqual(['09:00  evt_1   日本']);
    expect(lines(undefined, ['09:00', 'evt_1', '日本', 'x'])).toEqual(['09:00  evt_1   日本        x']);
    expect(lines(undefined, ['', 'evt_123456789', '', 'x'])).toEqual(['       evt_123456789       x']);
  });

  it('fit into a terminal: what nobody copies is cut first, then a row is several lines', () => {
    expect(lines(60)).toEqual(['09:00  evt_1   Ada Lovel…  sandbox 3f2a  the guest did not …']);
    expect(lines(42)).toEqual(['09:00  evt_1   Ada …  sandbox 3f2a  the g…']);
    expect(lines(30)).toEqual(['09:00  evt_1   Ada Lovelace', '  sandbox 3f2a  the guest did…']);
    expect(lines(16)).toEqual(['09:00  evt_1', '  Ada Lovelace', '  sandbox 3f2a', '  the guest did…']);
    expect(lines(16, ['09:00', 'evt_1', '', 'sandbox 3f2a', ''])).toEqual(['09:00  evt_1', '  sandbox 3f2a']);
    for (let width = 8; width < 70; width++)
      for (const line of lines(width)) expect(stringWidth(line)).toBeLessThanOrEqual(width);
  });

  it('have their titles where they are', () => {
    expect(stripVTControlCharacters(headerOf(columns, 30))).toBe('TIME   ID      BY\n  WHAT          WHY');
  });
});

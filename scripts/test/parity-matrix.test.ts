import { expect, it } from 'vitest';
import { untestedCells } from '../steps/parity-matrix.ts';

const SOURCES: Readonly<Record<string, string>> = {
  'packages/a.test.ts': `it('does it', () => {});\nit.each([1])(\n  'with %s (twice)', () => {});\n// it('is only told of')`,
};
const page = (...rows: string[]): string =>
  [
    '## Before',
    '| x | untested |',
    '## Parity',
    '',
    '| | A | B |',
    '|---|---|---|',
    ...rows,
    '',
    '## After',
    '| y | z |',
  ].join('\n');
const look = (...rows: string[]): string[] =>
  untestedCells({ path: 'docs/reference/b.md', text: page(...rows) }, (path) => SOURCES[path]);

it('A cell that links to a test by its name, or says no, is well', () => {
  const [one, two] = ['"does it"', '"with %s (twice)"'].map((title) => `[yes](../../packages/a.test.ts ${title})`);
  expect(look(`| row | ${one} ${two} | no: it cannot |`)).toEqual([]);
});

it.each([
  ['[yes](../../packages/a.test.ts "does something else")', 'has no test "does something else"'],
  ['[yes](../../packages/b.test.ts "does it")', '../../packages/b.test.ts does not exist'],
  ['yes', '"yes" names no test'],
  ['[yes](../../packages/a.test.ts)', 'names no test'],
])('%s is found out', (cell, problem) => {
  expect(look(`| row | ${cell} | no |`)).toEqual([expect.stringContaining(problem)]);
  expect(look(`| row | no | ${cell} |`)).toEqual([expect.stringContaining('docs/reference/b.md: row: ')]);
});

it('A page without the matrix is found out, too', () => {
  expect(untestedCells({ path: 'b.md', text: '# Backends' }, () => undefined)).toEqual([
    'b.md: there is no parity matrix',
  ]);
});

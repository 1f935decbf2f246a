import { expect, it } from 'vitest';
import { untestedCells } from '../steps/parity-matrix.ts';

const SOURCES = new Map(
  Object.entries({
    'packages/a.test.ts': `it('does it', () => {});\nit.each([1])(\n  'with %s (twice)', () => {});\n// it('is only told of')`,
    'packages/suite.ts': `import './part.ts';\nit('holds over both')`,
    'packages/part.ts': `it('holds in part')`,
    'packages/one.ts': `it('holds over one')`,
    'packages/a.nested.test.ts': `import { describeAll } from './suite.ts';\nimport './one.ts';`,
    'packages/a.vm.test.ts': `import { describeAll } from './suite.ts';`,
  }),
);
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
  untestedCells({ path: 'docs/reference/b.md', text: page(...rows) }, SOURCES);

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

it('A cell that links to what is told for both is well where tests of that backend run it', () => {
  const [both, part, one] = ['suite.ts "holds over both"', 'part.ts "holds in part"', 'one.ts "holds over one"'].map(
    (link) => `[yes](../../packages/${link})`,
  );
  expect(look(`| row | ${both} ${part} ${one} | ${both} ${part} |`)).toEqual([]);
  expect(look(`| row | ${one} | ${one} |`)).toEqual([
    'docs/reference/b.md: row: ../../packages/one.ts is run by no *.vm.test.ts',
  ]);
});

it('A page without the matrix is found out, too', () => {
  expect(untestedCells({ path: 'b.md', text: '# Backends' }, SOURCES)).toEqual(['b.md: there is no parity matrix']);
});

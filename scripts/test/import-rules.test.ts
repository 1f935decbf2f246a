import { expect, test } from 'vitest';
import { findViolations, importsOf, type SourceFile } from '../steps/import-rules.ts';

const source = (path: string, packageName: string, text: string): SourceFile => ({
  path,
  text,
  packageName,
  packageDirectory: path.split('/').slice(0, 2).join('/'),
});

test('imports are found in every form, and not in comments', () => {
  const text = `
import a from 'one';
import type { B } from 'two';
import {
  c,
} from "three";
export * from './four.ts';
import 'five';
const six = await import('six');
// import seven from 'seven';
/* import eight from 'eight'; */
`;
  expect(importsOf(text)).toEqual([
    { specifier: 'one', typeOnly: false },
    { specifier: 'two', typeOnly: true },
    { specifier: 'three', typeOnly: false },
    { specifier: './four.ts', typeOnly: false },
    { specifier: 'five', typeOnly: false },
    { specifier: 'six', typeOnly: false },
  ]);
});

test.each([
  [
    'a package that the table does not allow',
    'packages/core/src/a.ts',
    '@instavm/core',
    "import type { X } from '@instavm/vmm/qemu';",
  ],
  ['a file of another package', 'packages/vmm/src/a.ts', '@instavm/vmm', "import { x } from '../../core/src/ids.ts';"],
  ['a built-in module into core', 'packages/core/src/a.ts', '@instavm/core', "import { readFile } from 'node:fs';"],
])('%s may not be imported', (_, path, packageName, text) => {
  expect(findViolations([source(path, packageName, text)])).toHaveLength(1);
});

test.each([
  ['an allowed package', 'packages/core/src/a.ts', '@instavm/core', "import type { X } from '@instavm/wire';"],
  [
    'a built-in type into core',
    'packages/core/src/a.ts',
    '@instavm/core',
    "import type { Duplex } from 'node:stream';",
  ],
  [
    'the package itself, by name',
    'packages/vmm/test/a.test.ts',
    '@instavm/vmm',
    "import { x } from '@instavm/vmm/fake';",
  ],
  [
    'anything of ours, in a test',
    'packages/core/test/a.test.ts',
    '@instavm/core',
    "import { x } from '@instavm/testing';",
  ],
])('%s may be imported', (_, path, packageName, text) => {
  expect(findViolations([source(path, packageName, text)])).toEqual([]);
});

test('a cycle is reported with its path, unless a type-only import breaks it', () => {
  const cycle = (keyword: string): string[] =>
    findViolations([
      source('packages/core/src/a.ts', '@instavm/core', "import { b } from './b.ts';"),
      source('packages/core/src/b.ts', '@instavm/core', `${keyword} { a } from './a.ts';`),
    ]);
  expect(cycle('import')).toEqual([
    'import cycle: packages/core/src/a.ts → packages/core/src/b.ts → packages/core/src/a.ts',
  ]);
  expect(cycle('import type')).toEqual([]);
});

/**
 * Finds cells of the parity matrix (docs/reference/backends.md) that no test backs. A cell links to a test's file, and the link's title is the test's
 * name; or it begins with "no". What is told once for both backends is in a file that tests of that backend import. Pure.
 */
import { dirname, join, normalize } from 'node:path';
import type { Document } from './doc-links.ts';
import { importsOf } from './import-rules.ts';

/** How the files are called that run on the backend of each column. */
const RUN_BY = ['.nested.test.ts', '.vm.test.ts'];
const LINK = /\[[^\]]*\]\((\S+) "([^"]+)"\)/g;

/** @param sources of the repository by their paths. @returns one sentence for each problem */
export function untestedCells({ path, text }: Document, sources: ReadonlyMap<string, string>): string[] {
  const section = /^## Parity$([\s\S]*?)(?=^## |(?![\s\S]))/m.exec(text)?.[1] ?? '';
  const rows = section.split('\n').filter((line) => /^\| [^|]/.test(line) && !line.startsWith('| |'));
  if (rows.length === 0) return [`${path}: there is no parity matrix`];
  const run = RUN_BY.map((suffix) => importedBy(suffix, sources));
  return rows.flatMap((row) => {
    const [name = '', ...cells] = row.split(' | ').map((cell) => cell.replace(/^\||\|$/g, '').trim());
    return cells.flatMap((cell, at) => problemsOf(cell, at).map((problem) => `${path}: ${name}: ${problem}`));
  });

  function problemsOf(cell: string, column: number): string[] {
    const links = [...cell.matchAll(LINK)];
    if (links.length === 0) return /^no\b/.test(cell) ? [] : [`"${cell}" names no test`];
    return links.flatMap(([, target = '', title = '']) => {
      const file = normalize(join(dirname(path), target));
      const source = sources.get(file);
      if (source === undefined) return [`${target} does not exist`];
      if (!hasTest(source, title)) return [`${target} has no test "${title}"`];
      const isRun = file.endsWith('.test.ts') || run[column]?.has(file);
      return isRun ? [] : [`${target} is run by no *${RUN_BY[column]}`];
    });
  }
}

/** Files that tests with this suffix import, and those that these import. */
function importedBy(suffix: string, sources: ReadonlyMap<string, string>): ReadonlySet<string> {
  const found = new Set<string>();
  const visit = (path: string): void => {
    const text = sources.get(path);
    if (text === undefined || found.has(path)) return;
    found.add(path);
    for (const { specifier } of importsOf(text))
      if (specifier.startsWith('.')) visit(normalize(join(dirname(path), specifier)));
  };
  for (const path of sources.keys()) if (path.endsWith(suffix)) visit(path);
  return found;
}

/** As the first argument of a call, which is where names of tests stand. */
const hasTest = (source: string, name: string): boolean =>
  Array.from(source.matchAll(/\(\s*(['"`])(.*?)\1/g), ([, , argument]) => argument).includes(name);

/**
 * Finds cells of the parity matrix (docs/reference/backends.md) that no test backs. A cell links to a test's file, and the link's title is the test's
 * name; or it begins with "no". Pure.
 */
import { dirname, join, normalize } from 'node:path';
import type { Document } from './doc-links.ts';

const LINK = /\[[^\]]*\]\((\S+) "([^"]+)"\)/g;

/** @param textOf a path relative to the repository; undefined when there is no such file. @returns one sentence for each problem */
export function untestedCells({ path, text }: Document, textOf: (path: string) => string | undefined): string[] {
  const section = /^## Parity$([\s\S]*?)(?=^## |(?![\s\S]))/m.exec(text)?.[1] ?? '';
  const rows = section.split('\n').filter((line) => /^\| [^|]/.test(line) && !line.startsWith('| |'));
  if (rows.length === 0) return [`${path}: there is no parity matrix`];
  return rows.flatMap((row) => {
    const [name = '', ...cells] = row.split(' | ').map((cell) => cell.replace(/^\||\|$/g, '').trim());
    return cells.flatMap((cell) => problemsOf(cell).map((problem) => `${path}: ${name}: ${problem}`));
  });

  function problemsOf(cell: string): string[] {
    const links = [...cell.matchAll(LINK)];
    if (links.length === 0) return /^no\b/.test(cell) ? [] : [`"${cell}" names no test`];
    return links.flatMap(([, target = '', title = '']) => {
      const source = textOf(normalize(join(dirname(path), target)));
      if (source === undefined) return [`${target} does not exist`];
      return hasTest(source, title) ? [] : [`${target} has no test "${title}"`];
    });
  }
}

/** As the first argument of a call, which is where names of tests stand. */
const hasTest = (source: string, name: string): boolean =>
  Array.from(source.matchAll(/\(\s*(['"`])(.*?)\1/g), ([, , argument]) => argument).includes(name);

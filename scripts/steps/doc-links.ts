/** Finds relative links of Markdown documents that lead nowhere. Pure. */
import { dirname, join, normalize } from 'node:path';

export type Document = { readonly path: string; readonly text: string };

/** @param exists whether a path relative to the repository is a file or directory of it */
export function brokenLinks(documents: readonly Document[], exists: (path: string) => boolean): string[] {
  return documents.flatMap(({ path, text }) => {
    const prose = text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '');
    return Array.from(prose.matchAll(/\]\(([^)\s]+)\)/g), (match) => match[1] ?? '')
      .filter((target) => !/^([a-z]+:|#)/i.test(target))
      .filter((target) => !exists(normalize(join(dirname(path), target.replace(/#.*$/, '')))))
      .map((target) => `${path}: link to "${target}", which does not exist`);
  });
}

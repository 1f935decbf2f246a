/** Reads what the static checks look at: the repository's files as git knows them, new ones included. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { SourceFile } from './import-rules.ts';
import { ROOT } from './paths.ts';
import { run } from './run.ts';

/** @param patterns git pathspecs @returns paths relative to the repository, of files that exist */
export async function repositoryFiles(...patterns: readonly string[]): Promise<string[]> {
  const list = ['ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate', '--', ...patterns];
  const deleted = new Set((await run('git', ['ls-files', '--deleted'], { cwd: ROOT })).split('\n'));
  return (await run('git', list, { cwd: ROOT })).split('\n').filter((path) => path && !deleted.has(path));
}

export async function typescriptSources(): Promise<SourceFile[]> {
  const names = new Map<string, string>();
  for (const manifest of await repositoryFiles('packages/*/package.json', 'apps/*/package.json')) {
    const { name } = JSON.parse(await readFile(join(ROOT, manifest), 'utf8')) as { name: string };
    names.set(manifest.slice(0, -'/package.json'.length), name);
  }
  const paths = (await repositoryFiles('*.ts', '*.tsx')).filter((path) => !path.endsWith('.d.ts'));
  return Promise.all(
    paths.map(async (path) => {
      const directory = [...names.keys()].find((candidate) => path.startsWith(`${candidate}/`));
      const text = await readFile(join(ROOT, path), 'utf8');
      return { path, text, packageDirectory: directory, packageName: directory ? names.get(directory) : undefined };
    }),
  );
}

/** `npm run check`: every static check, all of them even when one fails. */
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brokenLinks } from './steps/doc-links.ts';
import { generateFiles } from './steps/generated-files.ts';
import { findViolations } from './steps/import-rules.ts';
import { untestedCells } from './steps/parity-matrix.ts';
import { AGENT_DIRECTORY, ROOT } from './steps/paths.ts';
import { makePythonEnvironments, pythonPath } from './steps/python-environments.ts';
import { Reporter } from './steps/report.ts';
import { type RunOptions, run } from './steps/run.ts';
import { repositoryFiles, typescriptSources } from './steps/source-files.ts';

type Check = { readonly name: string; readonly run: () => Promise<void> };

const CHECKS: readonly Check[] = [
  program('format and lint (biome)', bin('biome'), ['check', '--error-on-warnings', '.']),
  program('types (tsc)', bin('tsc'), ['-p', '.']),
  program('types of the dashboard (tsc)', bin('tsc'), ['-p', 'apps/dashboard']),
  { name: 'import rules', run: async () => failOn(findViolations(await typescriptSources())) },
  { name: 'generated files', run: checkGeneratedFiles },
  { name: 'links in documents', run: checkDocumentLinks },
  { name: 'tests of the parity matrix', run: checkParityMatrix },
  program('Rust format', 'cargo', ['fmt', '--check'], { cwd: AGENT_DIRECTORY }),
  program('Rust lint (clippy)', 'cargo', ['clippy', '--locked', '--all-targets', '--', '-D', 'warnings'], {
    cwd: AGENT_DIRECTORY,
  }),
  program('Python lint (ruff)', pythonPath('current'), [
    '-m',
    'ruff',
    'check',
    'python',
    'tests',
    'guest/agent/python',
  ]),
  program('Python format (ruff)', pythonPath('current'), [
    '-m',
    'ruff',
    'format',
    '--check',
    'python',
    'tests',
    'guest/agent/python',
  ]),
];

await new Reporter({ json: false }).step('Python', (progress) =>
  makePythonEnvironments(progress, new AbortController().signal, ['current']),
);
const failures: string[] = [];
for (const check of CHECKS) {
  const startedAt = performance.now();
  const error = await check.run().then(
    () => undefined,
    (reason: unknown) => reason,
  );
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  console.log(`${error === undefined ? 'ok    ' : 'FAILED'} ${check.name} (${seconds} s)`);
  if (error === undefined) continue;
  failures.push(check.name);
  console.log(error instanceof Error ? error.message : error);
}
console.log(
  failures.length === 0 ? `${CHECKS.length} checks passed` : `${failures.length} failed: ${failures.join(', ')}`,
);
process.exitCode = failures.length === 0 ? 0 : 1;

function bin(name: string): string {
  return join(ROOT, 'node_modules/.bin', name);
}

function program(name: string, command: string, args: readonly string[], options: RunOptions = {}): Check {
  // The npm tools are scripts for "node", which has to be the pinned one.
  const env = { PATH: `${join(ROOT, 'node_modules/.bin')}:${process.env.PATH ?? ''}` };
  return {
    name,
    run: async () => {
      await run(command, args, { cwd: ROOT, env, ...options });
    },
  };
}

function failOn(problems: readonly string[]): void {
  if (problems.length > 0) throw new Error(problems.map((problem) => `  ${problem}`).join('\n'));
}

async function checkGeneratedFiles(): Promise<void> {
  const stale: string[] = [];
  for (const [path, contents] of await generateFiles()) {
    if ((await readFile(join(ROOT, path), 'utf8').catch(() => '')) !== contents) stale.push(path);
  }
  failOn(stale.map((path) => `${path} is out of date; run: npm run generate`));
}

async function checkDocumentLinks(): Promise<void> {
  const documents = await Promise.all(
    (await repositoryFiles('*.md')).map(async (path) => ({ path, text: await readFile(join(ROOT, path), 'utf8') })),
  );
  failOn(brokenLinks(documents, (path) => existsSync(join(ROOT, path))));
}

async function checkParityMatrix(): Promise<void> {
  const path = 'docs/reference/backends.md';
  const text = await readFile(join(ROOT, path), 'utf8');
  const sources = new Map<string, string>();
  for (const source of await repositoryFiles('*.ts')) sources.set(source, await readFile(join(ROOT, source), 'utf8'));
  failOn(untestedCells({ path, text }, sources));
}

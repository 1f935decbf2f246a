/** The files that are generated from contracts, and how. `npm run generate` writes them, `npm run check` compares them. */
import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { ROOT } from './paths.ts';
import { run } from './run.ts';

/** Path relative to the repository → contents. */
export type GeneratedFiles = ReadonlyMap<string, string>;

export async function generateFiles(): Promise<GeneratedFiles> {
  return new Map([
    ...(await agentClient()),
    ['spec/openapi.json', await openApi()],
    ['docs/reference/cli.md', await printedBy('apps/cli/src/reference.ts')],
  ]);
}

/** TypeScript messages and services from `spec/agent.proto`, as `packages/agent-client/buf.gen.yaml` says. */
async function agentClient(): Promise<[string, string][]> {
  const out = await mkdtemp(join(tmpdir(), 'instavm-generate-'));
  try {
    const packageDirectory = join(ROOT, 'packages/agent-client');
    const bin = join(ROOT, 'node_modules/.bin');
    // The generator is a script for "node", which has to be the pinned one.
    const env = { PATH: `${bin}:${process.env.PATH ?? ''}` };
    await run(join(bin, 'buf'), ['generate', '--output', out], { cwd: packageDirectory, env });
    const files: [string, string][] = [];
    for (const entry of await readdir(out, { recursive: true, withFileTypes: true })) {
      if (!entry.isFile()) continue;
      const path = join(entry.parentPath, entry.name);
      files.push([join('packages/agent-client', relative(out, path)), await readFile(path, 'utf8')]);
    }
    return files;
  } finally {
    await rm(out, { recursive: true, force: true });
  }
}

/** The daemon's own description of its routes, from the schemas that validate its requests. */
async function openApi(): Promise<string> {
  return `${JSON.stringify(JSON.parse(await printedBy('apps/instavmd/src/openapi.ts')), null, 2)}\n`;
}

function printedBy(script: string): Promise<string> {
  const flags = ['--conditions=instavm-source', '--disable-warning=ExperimentalWarning'];
  return run(process.execPath, [...flags, join(ROOT, script)], { cwd: ROOT });
}

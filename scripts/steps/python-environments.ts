/**
 * The Python environments that tests and the demo use, in `.cache/venvs`: our package on the current Agents SDK, our package
 * on the oldest supported one, and the unmodified official client with the only SDK that it works with.
 */
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LOCAL_CACHE, ROOT } from './paths.ts';
import type { Progress } from './report.ts';
import { run } from './run.ts';

const TEST_TOOLS = ['pytest>=8,<10', 'pytest-asyncio>=1,<2'];

/** pip's arguments for each environment. `-e` so that edits of the package need no installation. */
export const PYTHON_ENVIRONMENTS = {
  current: [
    '-e',
    './python[agents]',
    'openai-agents==0.24.*',
    'ruff==0.17.6',
    'pyte==0.8.2',
    'schemathesis==4.32.5',
    'prometheus-client==0.26.0',
    ...TEST_TOOLS,
  ],
  'agents-0.14.1': ['-e', './python[agents]', 'openai-agents==0.14.1', 'openai<2.45', ...TEST_TOOLS],
  official: ['instavm==0.26.1', 'openai-agents==0.14.1', 'openai<2.45', ...TEST_TOOLS],
} as const satisfies Record<string, readonly string[]>;

export type PythonEnvironment = keyof typeof PYTHON_ENVIRONMENTS;

/** The environment's interpreter. */
export function pythonPath(name: PythonEnvironment): string {
  return join(LOCAL_CACHE, 'venvs', name, 'bin', 'python');
}

/** Makes those of the named environments that are not there yet, or that are not what the table above says. */
export async function makePythonEnvironments(
  progress: Progress,
  signal: AbortSignal,
  names: readonly PythonEnvironment[] = Object.keys(PYTHON_ENVIRONMENTS) as PythonEnvironment[],
): Promise<string> {
  const interpreter = await run('python3', [
    '-c',
    'import sys, venv, ensurepip; print(sys.base_prefix, sys.version)',
  ]).catch((cause: unknown) => {
    throw new Error('python3 lacks venv; run: sudo apt-get install python3-venv', { cause });
  });
  const project = await readFile(join(ROOT, 'python/pyproject.toml'), 'utf8');
  const made: string[] = [];
  for (const name of names) {
    const requirements = PYTHON_ENVIRONMENTS[name];
    const directory = join(LOCAL_CACHE, 'venvs', name);
    const stamp = join(directory, 'complete');
    const recipe = JSON.stringify({ interpreter, requirements, project: requirements[0] === '-e' ? project : '' });
    if ((await readFile(stamp, 'utf8').catch(() => '')) === recipe) continue;

    progress(`making the environment ${name}`);
    await rm(directory, { recursive: true, force: true });
    await mkdir(directory, { recursive: true });
    await run('python3', ['-m', 'venv', directory], { signal });
    const pip = ['-m', 'pip', 'install', '--progress-bar', 'off', '--disable-pip-version-check', ...requirements];
    await run(join(directory, 'bin/python'), pip, { cwd: ROOT, signal });
    await writeFile(stamp, recipe);
    made.push(name);
  }
  return made.length === 0 ? 'unchanged' : `made ${made.join(', ')}`;
}

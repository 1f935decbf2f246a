/**
 * What tests run in sandboxes as users would, too large and too slow to install in an emulated guest: Vite, Express, ws and a Jupyter server, as one
 * read-only filesystem that a guest mounts. `tests/e2e/programs` pins them.
 */
import { copyFile, mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LOCAL_CACHE, ROOT } from './paths.ts';
import { pythonPath } from './python-environments.ts';
import type { Progress } from './report.ts';
import { run } from './run.ts';

const PINS = join(ROOT, 'tests/e2e/programs');
const PIN_FILES = ['package.json', 'package-lock.json', 'requirements.txt'];
const DIRECTORY = join(LOCAL_CACHE, 'guest-programs');
/** With `node_modules` and `python` in it. */
export const GUEST_PROGRAMS = join(LOCAL_CACHE, 'guest-programs.erofs');

/** The guest's, whatever the host is. */
const NPM = ['ci', '--ignore-scripts', '--no-audit', '--no-fund', '--os=linux', '--cpu=x64', '--libc=glibc'];
const PLATFORMS = ['--platform=manylinux_2_28_x86_64', '--platform=manylinux2014_x86_64'];
const PIP = ['--only-binary=:all:', '--python-version=3.11', ...PLATFORMS, '--no-deps', '--no-compile'];
const EROFS = ['-zlz4', '--all-root', '-T0', '--quiet', '--exclude-regex=(^|/)tests?$'];

/** Makes them when they are not there, or not what the pins say. Needs the Python environments. */
export async function packGuestPrograms(progress: Progress, signal: AbortSignal): Promise<string> {
  const pins = await Promise.all(PIN_FILES.map((name) => readFile(join(PINS, name), 'utf8')));
  const recipe = JSON.stringify({ pins, NPM, PIP, EROFS });
  const stamp = `${GUEST_PROGRAMS}.recipe`;
  if ((await readFile(stamp, 'utf8').catch(() => '')) === recipe) return 'unchanged';

  progress('downloading Vite, Express and Jupyter');
  await rm(stamp, { force: true });
  await rm(DIRECTORY, { recursive: true, force: true });
  const contents = join(DIRECTORY, 'contents');
  await mkdir(contents, { recursive: true });
  for (const name of PIN_FILES) await copyFile(join(PINS, name), join(contents, name));
  await run('npm', NPM, { cwd: contents, signal });
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', '--target=python', ...PIP];
  await run(pythonPath('current'), [...pip, '-r', 'requirements.txt'], { cwd: contents, signal });

  progress('packing them');
  const packed = join(DIRECTORY, 'programs.erofs');
  await run('mkfs.erofs', [...EROFS, packed, contents], { signal });
  await rename(packed, GUEST_PROGRAMS);
  await rm(DIRECTORY, { recursive: true });
  await writeFile(stamp, recipe);
  return 'made';
}

/** Builds the dashboard into files that the daemon serves, and skips that when nothing it is made from has changed. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { brotliCompress, gzip } from 'node:zlib';
import { LOCAL_CACHE, ROOT } from './paths.ts';
import type { Progress } from './report.ts';
import { run } from './run.ts';

const DIRECTORY = join(ROOT, 'apps/dashboard');
const OUTPUT = join(DIRECTORY, 'dist');
const STAMP = join(LOCAL_CACHE, 'dashboard.stamp');
const COMPRESSED = /\.(js|css|html|svg)$/;

export async function buildDashboard(progress: Progress, signal: AbortSignal): Promise<string> {
  const sources = await digestOf(DIRECTORY, [join(ROOT, 'package-lock.json')], ['dist', 'node_modules']);
  const stamp = await readFile(STAMP, 'utf8').catch(() => '');
  if (stamp === `${sources}\n${await digestOf(OUTPUT)}`) return 'unchanged';

  progress('building (vite)');
  const vite = join(ROOT, 'node_modules/vite/bin/vite.js');
  await run(process.execPath, [vite, 'build', '--logLevel', 'warn'], { cwd: DIRECTORY, signal });
  const sizeBytes = await compress(OUTPUT);
  await mkdir(dirname(STAMP), { recursive: true });
  await writeFile(STAMP, `${sources}\n${await digestOf(OUTPUT)}`);
  return `built, ${Math.round(sizeBytes / 1000)} kB compressed`;
}

/** Beside each file what browsers are sent instead of it, so that the daemon compresses nothing. @returns the sum with gzip */
async function compress(directory: string): Promise<number> {
  let sum = 0;
  for (const path of await filesIn(directory, [])) {
    if (!COMPRESSED.test(path)) continue;
    const contents = await readFile(path);
    const small = await promisify(gzip)(contents, { level: 9 });
    sum += small.length;
    await writeFile(`${path}.gz`, small);
    await writeFile(`${path}.br`, await promisify(brotliCompress)(contents));
  }
  return sum;
}

/** Over the names and contents of all files in it, and of some others. */
async function digestOf(directory: string, others: readonly string[] = [], except: readonly string[] = []) {
  const hash = createHash('sha256');
  for (const path of [...(await filesIn(directory, except)), ...others]) {
    const contents = await readFile(path);
    hash.update(`${path}\0${contents.length}\0`).update(contents);
  }
  return hash.digest('hex');
}

/** In order of their names; none when the directory is not there. */
async function filesIn(directory: string, except: readonly string[]): Promise<string[]> {
  const entries = await readdir(directory, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  const kept = entries.filter(({ name }) => !except.includes(name));
  const nested = await Promise.all(
    kept.map(async (entry) => {
      const path = join(directory, entry.name);
      return entry.isDirectory() ? filesIn(path, []) : [path];
    }),
  );
  return nested.flat().sort();
}

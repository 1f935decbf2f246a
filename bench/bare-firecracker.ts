/**
 * Firecracker alone, the least that a restore can cost: no jailer, no daemon, no guest agent. It is started where links to a template's files are,
 * and told to load them and to resume.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { link, mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { dial, load } from './nested/bare.ts';

/**
 * @param directory for its files, on the filesystem of the template
 * @returns ms from the start of the process to the answer that the guest runs
 */
export async function bareLoadMs(binary: string, template: string, directory: string): Promise<number> {
  const own = await mkdtemp(join(directory, 'bare-'));
  try {
    for (const file of ['base.erofs', 'memory', 'state']) await link(join(template, file), join(own, file));
    await promisify(execFile)('cp', ['--sparse=always', '--reflink=auto', join(template, 'overlay.ext4'), own]);
    const startedAt = performance.now();
    const child = spawn(binary, ['--api-sock', 'api.sock'], { cwd: own, env: {}, stdio: 'ignore' });
    const ended = once(child, 'exit');
    const gone = new AbortController();
    child.once('exit', () => gone.abort(new Error('Firecracker ended before it had loaded the template')));
    try {
      await load(await dial(join(own, 'api.sock'), gone.signal));
      return performance.now() - startedAt;
    } finally {
      child.kill('SIGKILL');
      await ended;
    }
  } finally {
    await rm(own, { recursive: true, force: true });
  }
}

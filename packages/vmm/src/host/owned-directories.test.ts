/** Directories of work under way, of processes that live and that were killed. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeOwnedDirectory, removeAbandonedDirectories } from './owned-directories.ts';
import { fateOf, processToken } from './process-token.ts';
import { removeTemplateLeftovers } from './template-leftovers.ts';

describe('directories of work under way', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'instavm-owned-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  const make = async (name: string): Promise<string> => {
    await mkdir(join(root, name), { recursive: true });
    await writeFile(join(root, name, 'memory'), 'pages');
    return join(root, name);
  };
  /** Of a process that lives until `end`. */
  const startOther = async (): Promise<{ token: string; end: () => Promise<unknown> }> => {
    const other = spawn('sleep', ['60']);
    await once(other, 'spawn');
    const end = (): Promise<unknown> => {
      other.kill('SIGKILL');
      return once(other, 'exit');
    };
    return { token: processToken(other.pid), end };
  };

  it('stay while their process lives, ours or another, and go when it was killed', async () => {
    const own = await makeOwnedDirectory(root, '.partial-0123456789ab');
    const other = await startOther();
    await make(`.partial-0123456789ab-${other.token}-00000000`);
    expect(await removeAbandonedDirectories(root, '.partial')).toBe(0);
    await other.end();
    expect(await removeAbandonedDirectories(root, '.partial')).toBe(1);
    expect(await readdir(root)).toEqual([basename(own)]);
  });

  it('are not taken for a living process’s because that has the same pid', async () => {
    const [namespace, pid, ticks] = processToken().split('.');
    expect(fateOf(processToken())).toBe('runs');
    await make(`.partial-a-${namespace}.${pid}.${Number(ticks) - 1}-00000000`);
    expect(await removeAbandonedDirectories(root, '.partial')).toBe(1);
  });

  it('of which nobody can tell the process stay for a day after the last of their files was written', async () => {
    const [, ...rest] = processToken().split('.');
    const names = ['.partial-0123456789ab-1f6f1600', `.partial-a-1.${rest.join('.')}-00000000`];
    for (const name of names) await make(name);
    const longAgo = new Date(Date.now() - 25 * 3_600_000);
    for (const name of names) await utimes(join(root, name), longAgo, longAgo);
    expect(await removeAbandonedDirectories(root, '.partial')).toBe(0);
    for (const name of names) await utimes(join(root, name, 'memory'), longAgo, longAgo);
    expect(await removeAbandonedDirectories(root, '.partial')).toBe(2);
  });

  it('are found everywhere in a cache directory, and nothing else is touched', async () => {
    const other = await startOther();
    await other.end();
    const left = ['templates/.partial-a', 'templates/.removed', '.kvm-probe', '.restore'];
    for (const name of left) await make(`${name}-${other.token}-00000000`);
    const kept = ['templates/0123456789abcdef0123456789abcdef', 'images', 'templates/.used'];
    for (const name of kept) await make(name);
    expect(await removeTemplateLeftovers(root)).toBe(left.length);
    expect((await readdir(root)).sort()).toEqual(['images', 'templates']);
    expect((await readdir(join(root, 'templates'))).sort()).toEqual(['.used', basename(kept[0] ?? '')].sort());
    expect(await removeTemplateLeftovers(join(root, 'nowhere'))).toBe(0);
  });
});

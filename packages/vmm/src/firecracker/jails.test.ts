import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { expect, it } from 'vitest';
import { reapJails } from './jails.ts';

it('jails of every executable are removed, those that somebody holds left out', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-jails-'));
  const jails = ['firecracker/vm-a', 'firecracker/vm-b', 'firecracker-v1.12.1/vm-c'];
  for (const jail of jails) await mkdir(join(directory, jail, 'root'), { recursive: true });
  expect(await reapJails(directory, 'instavm-none', new Set(jails.map((jail) => basename(jail))))).toBe(0);
  expect(await reapJails(directory, 'instavm-none', new Set())).toBe(3);
  expect((await readdir(directory, { recursive: true })).sort()).toEqual(['firecracker', 'firecracker-v1.12.1']);
  expect(await reapJails(join(directory, 'nowhere'), 'instavm-none', new Set())).toBe(0);
  await rm(directory, { recursive: true });
});

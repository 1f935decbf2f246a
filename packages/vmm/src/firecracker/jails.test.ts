import { mkdir, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { reapAllJails } from './jails.ts';

it('Jails of every executable are removed for a daemon that does not use Firecracker', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-jails-'));
  const jails = ['firecracker/vm-a', 'firecracker/vm-b', 'firecracker-v1.12.1/vm-c'];
  for (const jail of jails) await mkdir(join(directory, jail, 'root'), { recursive: true });
  expect(await reapAllJails(directory, 'instavm-none')).toBe(3);
  expect((await readdir(directory, { recursive: true })).sort()).toEqual(['firecracker', 'firecracker-v1.12.1']);
  expect(await reapAllJails(join(directory, 'nowhere'), 'instavm-none')).toBe(0);
  await rm(directory, { recursive: true });
});

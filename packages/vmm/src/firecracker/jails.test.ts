import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { expect, it } from 'vitest';
import { Jail } from './jail.ts';
import { reapJails } from './jails.ts';
import { UNLIMITED } from './machine.ts';

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

it('a jail is found in the cgroup that it was made in, whatever its daemon’s directory is called by now', async () => {
  const baseDirectory = await mkdtemp(join(tmpdir(), 'instavm-jails-'));
  const binaries = { firecracker: '/opt/firecracker', jailer: '/opt/jailer' };
  const siteOf = (parentCgroup: string) => ({
    ...{ binaries, baseDirectory, parentCgroup, disk: UNLIMITED, observer: () => {} },
  });
  const place = { executable: 'firecracker', name: 'vm-a' };
  const { cgroup, directory } = await Jail.create(siteOf('instavm-before'), 'vm-a', { uid: 7, templateKey: 'k' });
  expect((await Jail.find(siteOf('instavm-after'), place))?.cgroup.path).toBe(cgroup.path);
  // As the first daemons wrote them, and as nobody did.
  const record = (more: object) =>
    writeFile(join(directory, 'vmm.json'), JSON.stringify({ uid: 7, templateKey: 'k', ...more }));
  await record({});
  expect((await Jail.find(siteOf('instavm-after'), place))?.cgroup.path).toMatch(/\/instavm-after\/vm-a$/);
  await record({ parentCgroup: '../..' });
  expect(await Jail.find(siteOf('instavm-after'), place)).toBeUndefined();
  await rm(baseDirectory, { recursive: true });
});

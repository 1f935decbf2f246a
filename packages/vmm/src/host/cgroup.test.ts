import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { access, mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Cgroup, diskUnder } from './cgroup.ts';

it('the disk under a file is a whole one that the kernel knows', async () => {
  const disk = await diskUnder(import.meta.filename);
  // None under an overlay, as in a container.
  if (disk === undefined) return;
  await access(`/sys/dev/block/${disk}`);
  await expect(access(`/sys/dev/block/${disk}/partition`)).rejects.toMatchObject({ code: 'ENOENT' });
});

it('there is none under what is no file, or on no disk', async () => {
  expect(await diskUnder(`${import.meta.filename}/nothing`)).toBeUndefined();
  expect(await diskUnder('/proc/self/status')).toBeUndefined();
});

it('what runs in one is ended also by a kernel that cannot end all of it at once', async () => {
  const mount = await mkdtemp(join(tmpdir(), 'instavm-cgroup-'));
  const cgroup = new Cgroup('parent', 'vm-a', mount);
  await mkdir(cgroup.path, { recursive: true });
  const child = spawn('sleep', ['60'], { stdio: 'ignore' });
  const gone = once(child, 'exit').then(async ([, signal]) => {
    // What the kernel does.
    for (const name of await readdir(cgroup.path)) await rm(join(cgroup.path, name));
    return signal as unknown;
  });
  await writeFile(join(cgroup.path, 'cgroup.events'), 'populated 1\nfrozen 0\n');
  // The first one cannot be seen from here, and the last has just ended.
  await writeFile(join(cgroup.path, 'cgroup.procs'), `0\n${child.pid}\n4194303\n`);
  await cgroup.end();
  expect(await gone).toBe('SIGKILL');
  expect(await readdir(join(mount, 'parent'))).toEqual([]);
  await rm(mount, { recursive: true });
});

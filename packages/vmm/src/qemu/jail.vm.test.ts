/** What a running QEMU may do to its host, as the kernel tells; and what is true of it all the same. */
import { execFile } from 'node:child_process';
import { readdir, readFile, readlink, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { type MicroVm, newIncarnationId } from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { expectNoNetwork, openFiles, procStatus, unlessGone } from '../test/proc-status.ts';
import { type Backend, makeBackend, shell, UIDS } from './test/backend.ts';

const run = promisify(execFile);

let backend: Backend;
let vm: MicroVm;
beforeAll(async () => {
  backend = await makeBackend();
  vm = await backend.vmm.restore(await backend.template(), newIncarnationId());
});
afterAll(async () => {
  await vm.kill();
  expect(await backend.leftovers()).toEqual([]);
  await backend.close();
});

const uidOf = async (pid = vm.pid): Promise<number> => Number((await procStatus(pid)).Uid?.split('\t')[0]);

describe('a running QEMU', () => {
  it('has no capability, no way to new privileges, and a seccomp filter on every thread', async () => {
    const threads = await readdir(`/proc/${vm.pid}/task`);
    expect(threads.length).toBeGreaterThan(2);
    for (const thread of threads) {
      // QEMU ends threads that have nothing to do.
      const status = await procStatus(vm.pid, Number(thread)).catch(unlessGone);
      if (status === undefined) continue;
      for (const set of ['CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb']) expect(status[set]).toMatch(/^0+$/);
      expect(status).toMatchObject({ NoNewPrivs: '1', Seccomp: '2' });
    }
  });

  it('has an empty environment, a session of its own, no core dumps, and only the files of its microVM', async () => {
    expect(await readFile(`/proc/${vm.pid}/environ`, 'utf8')).toBe('');
    const [, , , session] = (await readFile(`/proc/${vm.pid}/stat`, 'utf8')).split(') ')[1]?.split(' ') ?? [];
    expect(Number(session)).toBe(vm.pid);
    const limits = await readFile(`/proc/${vm.pid}/limits`, 'utf8');
    expect(limits).toMatch(/^Max core file size\s+0\s+0\s/m);
    expect(limits).toMatch(/^Max open files\s+1024\s+1024\s/m);
    const ours = ['base.erofs', 'initramfs.cpio', 'memory', 'overlay.ext4', 'state', 'stderr.log', 'vmlinuz'];
    expect((await openFiles(vm.pid)).filter((name) => !ours.includes(name))).toEqual([]);
  });

  it('has a network of its own in which there is nothing but a loopback interface that is down', async (context) => {
    const { namespaces, missing } = backend.confinement;
    if (namespaces === 'none') return context.skip(missing.join('; '));
    for (const namespace of ['ipc', 'uts'])
      expect(await readlink(`/proc/${vm.pid}/ns/${namespace}`)).not.toBe(await readlink(`/proc/self/ns/${namespace}`));
    await expectNoNetwork(vm.pid);
  });

  it('has a user of its own, who can make, rename and remove no file and read no other’s', async (context) => {
    const { uids, missing } = backend.confinement;
    if (uids === undefined) return context.skip(missing.join('; '));
    const other = await backend.vmm.restore(await backend.template(), newIncarnationId());
    try {
      const uid = await uidOf();
      expect(uid).toBeGreaterThanOrEqual(UIDS.first);
      expect(uid).toBeLessThan(UIDS.first + UIDS.count);
      expect(await uidOf(other.pid)).not.toBe(uid);
      const as = (cwd: string, ...command: string[]): Promise<unknown> =>
        run('setpriv', [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups', ...command], { cwd });
      const own = join(backend.runDirectory, vm.incarnationId);
      await as(own, 'cat', 'overlay.ext4', '--version');
      for (const name of await readdir(own)) {
        await expect(as(own, 'mv', name, 'other')).rejects.toThrow(/denied/);
        await expect(as(own, 'rm', '-f', name)).rejects.toThrow(/denied/);
      }
      for (const make of ['ln -s /etc', 'mkfifo', 'mkdir', 'touch'])
        await expect(as(own, ...make.split(' '), 'other')).rejects.toThrow(/denied/);
      await expect(as(own, 'cat', 'vmm.json')).rejects.toThrow(/denied/);
      await expect(as(join(backend.runDirectory, other.incarnationId), 'ls')).rejects.toThrow(/denied/);
    } finally {
      await other.kill();
    }
  });

  it('is taken over with its user, whom no further microVM gets', async () => {
    const next = backend.again();
    const [survivor] = await next.adoptSurvivors();
    expect(survivor).toMatchObject({ incarnationId: vm.incarnationId, pid: vm.pid });
    const fresh = await next.restore(await backend.template(), newIncarnationId());
    try {
      if (backend.confinement.uids !== undefined) expect(await uidOf(fresh.pid)).not.toBe(await uidOf());
      expect(await shell(survivor as MicroVm, 'echo here')).toBe('here');
    } finally {
      await fresh.kill();
    }
  });
});

it('A snapshot that was moved to another directory is restored from there', async () => {
  const first = await backend.vmm.restore(await backend.template(), newIncarnationId());
  const sum = await shell(first, 'head -c 4M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data');
  const [made, moved] = [join(backend.scratch, 'made'), join(backend.scratch, 'moved')];
  await first.snapshot(made, 'end');
  await rename(made, moved);
  const found = await backend.vmm.findSnapshot(moved);
  if (found === undefined) throw new Error('the snapshot is not found where it was moved to');
  const again = await backend.vmm.restore(found, newIncarnationId());
  expect(await shell(again, 'sha256sum < /dev/shm/data')).toBe(sum);
  await again.kill();
  await rm(moved, { recursive: true });
});

it('A guest that uses up processor, memory, processes and disk hurts nobody else, and ends like any other', async () => {
  const noisy = await backend.vmm.restore(await backend.template(), newIncarnationId());
  const worst = [
    '(head -c 2G /dev/zero | tail) >/dev/null 2>&1 &',
    '(dd if=/dev/zero of=/root/full bs=1M) >/dev/null 2>&1 &',
    'for i in 1 2 3 4; do (while :; do :; done) >/dev/null 2>&1 & done',
    // After this it may have no process left to say anything.
    'echo started; (bomb() { bomb | bomb & }; bomb) >/dev/null 2>&1 &',
  ].join('\n');
  try {
    expect(await shell(noisy, worst)).toContain('started');
    await sleep(2_000);
    expect(await shell(vm, 'echo here > /root/file; cat /root/file')).toBe('here');
    const rss = Number(/^VmRSS:\s+(\d+)/m.exec(await readFile(`/proc/${noisy.pid}/status`, 'utf8'))?.[1]) / 1024;
    expect(rss).toBeLessThan(512 + 320);
    const { size, blocks } = await stat(join(backend.runDirectory, noisy.incarnationId, 'overlay.ext4'));
    expect(blocks * 512).toBeLessThanOrEqual(size);
  } finally {
    await noisy.kill();
  }
});

it('Traffic with the disk is limited', async () => {
  const slow = backend.again({ disk: { bytesPerSecond: 4e6, operationsPerSecond: Infinity } });
  const limited = await slow.restore(await backend.template(), newIncarnationId());
  try {
    const startedAt = performance.now();
    await shell(limited, 'dd if=/dev/zero of=/root/file bs=1M count=16 oflag=direct 2>/dev/null');
    expect(performance.now() - startedAt).toBeGreaterThan(3_000);
  } finally {
    await limited.kill();
  }
});

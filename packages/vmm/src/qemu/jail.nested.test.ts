/** QEMU's jail on a host with cgroup v2, by what runs in it in QEMU's place. Runs in the machine that scripts/nested makes, or as root on such a host. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, chown, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newIncarnationId } from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Cgroup, cgroupsIn } from '../host/cgroup.ts';
import { UNLIMITED } from '../host/disk-limits.ts';
import { type Confinement, probeConfinement, QemuJails } from './jail.ts';

const PARENT = 'instavm-test-jail';
const UIDS = { first: 320_000, count: 4 };
const SIZE = { memoryMib: 64, vcpus: 1 };
const PIDS_MAX = 81;
/** As good as any. */
const KVM_GROUP = 330_000;

let directory: string;
let confinement: Confinement;
let jails: QemuJails;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-jail-'));
  confinement = await probeConfinement({ uids: UIDS, parentCgroup: PARENT, usesKvm: false });
  jails = new QemuJails(confinement);
  await writeFile(join(directory, 'memory'), 'x');
});
afterAll(async () => {
  expect(await cgroupsIn(PARENT)).toEqual([]);
  await rm(directory, { recursive: true, force: true });
});

/** In a jail, as QEMU would run. */
async function inJail(
  name: string,
  script: string,
): Promise<{ child: ChildProcess; own: string; close(): Promise<void> }> {
  const own = await mkdtemp(join(directory, 'vm-'));
  await writeFile(join(own, 'overlay.ext4'), 'x'.repeat(4096));
  const jail = jails.make(name);
  await jail.prepare(own, SIZE, { memory: join(directory, 'memory'), images: [] });
  const [program, args] = jail.command('bash', ['-c', `read; ${script}`]);
  const child = spawn(program, args, { cwd: own, env: {}, stdio: ['pipe', 'ignore', 'inherit'] });
  await jail.enter(child.pid ?? 0, own, UNLIMITED);
  await expect.poll(() => readFile(`/proc/${child.pid}/comm`, 'utf8'), { timeout: 300_000 }).toBe('bash\n');
  child.stdin?.end('go\n');
  return { child, own, close: () => jail.close() };
}

const readLimit = async (name: string, file: string): Promise<string> =>
  (await readFile(join('/sys/fs/cgroup', PARENT, name, file), 'utf8')).trim();

describe('QEMU’s jail where the daemon is root on cgroup v2', () => {
  it('lacks nothing', () => {
    expect(confinement).toEqual({
      namespaces: 'root',
      dropsCapabilities: true,
      uids: UIDS,
      parentCgroup: PARENT,
      missing: [],
    });
  });

  it('limits memory, processes and processor time of a user of its own, and is gone with what ran in it', async () => {
    const { child, close } = await inJail('one', 'sleep 600');
    const status = await readFile(`/proc/${child.pid}/status`, 'utf8');
    expect(status).toMatch(/^Uid:\t320000\t320000\t320000\t320000$/m);
    expect(status).toMatch(/^NoNewPrivs:\t1$/m);
    expect(await readLimit('one', 'memory.max')).toBe(String((64 + 320) * 1024 * 1024));
    expect(await readLimit('one', 'memory.swap.max')).toBe('0');
    expect(await readLimit('one', 'pids.max')).toBe(String(PIDS_MAX));
    expect(await readLimit('one', 'cpu.max')).toBe('150000 100000');
    expect(await new Cgroup(PARENT, 'one').processes()).toContain(child.pid);
    await close();
    expect(child.signalCode ?? (await once(child, 'exit'))[1]).toBe('SIGKILL');
    expect(await cgroupsIn(PARENT)).toEqual([]);
  });

  it('lets a fork bomb go off in itself alone, and whoever finds it ends all of it', async () => {
    const bomb = newIncarnationId();
    const { child } = await inJail(bomb, 'for i in {1..200}; do sleep 600 & done 2>/dev/null; sleep 600');
    const cgroup = new Cgroup(PARENT, bomb);
    await expect.poll(async () => readLimit(bomb, 'pids.events'), { timeout: 300_000 }).toMatch(/max [1-9]/);
    expect((await cgroup.processes()).length).toBeLessThanOrEqual(PIDS_MAX);
    const next = new QemuJails(confinement);
    expect(await next.reapOthers(new Set([bomb]))).toBe(0);
    expect(await next.reapOthers(new Set())).toBe(1);
    expect(await cgroup.processes()).toEqual([]);
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });

  it('lets nothing write more than the disk of the microVM has', async () => {
    const { child, own, close } = await inJail('full', 'head -c 1M /dev/zero > more; exit 3');
    expect((await once(child, 'exit'))[0]).toBe(3);
    expect((await stat(join(own, 'more'))).size).toBe(4096);
    await close();
  });

  it('gives no microVM root’s group: where KVM is for root alone, there is no user for each', async () => {
    const { mode, uid, gid } = await stat('/dev/kvm');
    const probe = () => probeConfinement({ uids: UIDS, parentCgroup: PARENT, usesKvm: true });
    try {
      await chown('/dev/kvm', 0, 0);
      await chmod('/dev/kvm', 0o660);
      expect(await probe()).toMatchObject({ uids: undefined, missing: [expect.stringContaining('/dev/kvm')] });
      await chown('/dev/kvm', 0, KVM_GROUP);
      expect(await probe()).toMatchObject({ uids: UIDS, missing: [] });
      const { child, close } = await inJail('grouped', 'sleep 600');
      expect(await readFile(`/proc/${child.pid}/status`, 'utf8')).toMatch(
        new RegExp(`^Groups:\\t${KVM_GROUP} *$`, 'm'),
      );
      await close();
    } finally {
      await chown('/dev/kvm', uid, gid);
      await chmod('/dev/kvm', mode & 0o777);
    }
  });
});

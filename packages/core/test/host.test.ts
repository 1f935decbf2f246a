/** The warm pool, admission, snapshots and clones, with the world made by hand. */
import { InstaVMError } from '@instavm/wire';
import { describe, expect, it } from 'vitest';
import { DEFAULT_LIFECYCLE, type TemplateKey } from '../src/index.ts';
import { ACCOUNT, ladder, SIZE } from './fakes.ts';
import { settled } from './settled.ts';

async function filled(warm: number) {
  const stage = ladder({ warm });
  stage.service.warmUp();
  for (let time = 0; time < warm; time++) {
    stage.clock.advance(1_000);
    await settled();
  }
  return stage;
}

describe('restoring', () => {
  /** Restores of which none ends. */
  const hanging = (count: number) => {
    const stage = ladder();
    let held = 0;
    stage.world.beforeRestore = () => (held++ < count ? new Promise(() => {}) : Promise.resolve());
    return { ...stage, restores: () => held };
  };

  it('is done a few at a time', async () => {
    const { create, service, restores } = hanging(8);
    for (let time = 0; time < 8; time++) create().catch(() => {});
    await settled();
    expect([restores(), service.restores]).toEqual([4, { active: 4, waiting: 4 }]);
  });

  it('is not kept from one sandbox by the guests of others that keep silent', async () => {
    const { create, clock, restores } = hanging(4);
    for (let time = 0; time < 4; time++) create().catch(() => {});
    await settled();
    const owner = create();
    await settled();
    expect(restores()).toBe(4);
    clock.advance(5_000);
    expect((await owner).record.state).toBe('running');
  });
});

describe('the warm pool', () => {
  it('is filled one by one, and gives a sandbox what runs already', async () => {
    const { service, vms, create, clock } = ladder({ warm: 2 });
    service.warmUp();
    const depths: number[] = [];
    for (let time = 0; time < 4; time++) {
      clock.advance(1_000);
      await settled();
      depths.push(service.warm);
    }
    expect(depths).toEqual([1, 2, 2, 2]);
    const owner = await create();
    expect(vms).toHaveLength(2);
    expect(owner.record).toMatchObject({ state: 'running', incarnationId: vms[0]?.incarnationId });
    expect((await owner.guest()).identity?.env).toEqual({ A: 'b' });
  });

  it('waits with a refill until nobody makes anything', async () => {
    const { service, create, clock } = await filled(1);
    await create();
    clock.advance(999);
    await settled();
    expect(service.warm).toBe(0);
    clock.advance(1);
    await settled();
    expect(service.warm).toBe(1);
  });

  it('gives nothing to a sandbox of another size', async () => {
    const { service, vms } = await filled(1);
    const size = { memoryMib: 1024, vcpus: 2 };
    const spec = { size, ttlSeconds: 60, metadata: {}, env: {}, egress: null, lifecycle: DEFAULT_LIFECYCLE };
    await service.create({ accountId: ACCOUNT, ...spec });
    expect([vms.length, service.warm]).toEqual([2, 1]);
  });

  it('never serves what was made from a template of before', async () => {
    const { world, service, vms, create } = await filled(1);
    world.templateKey = 'new' as TemplateKey;
    const owner = await create();
    expect(owner.record.incarnationId).not.toBe(vms[0]?.incarnationId);
    await settled();
    expect([vms[0]?.killed, service.warm]).toEqual([true, 0]);
  });

  it('forgets one that died while it waited', async () => {
    const { service, vms, create } = await filled(1);
    vms[0]?.die();
    await settled();
    expect(service.warm).toBe(0);
    expect((await create()).record.state).toBe('running');
  });

  it('is emptied when the host needs the memory, and not filled before there is room', async () => {
    const { world, service, clock } = await filled(1);
    world.host.availableMemoryMib = 900;
    clock.advance(15_000);
    await settled();
    expect([service.warm, world.alive]).toEqual([0, []]);
    world.host.availableMemoryMib = 20_000;
    clock.advance(15_000);
    await settled();
    expect(service.warm).toBe(1);
  });

  it('is filled later when the host does not say what it has', async () => {
    const { world, service, clock } = ladder({ warm: 1 });
    const { availableMemoryMib } = world.host;
    const refused = {
      get: () => {
        throw new Error('EMFILE: too many open files');
      },
      configurable: true,
    };
    Object.defineProperty(world.host, 'availableMemoryMib', refused);
    service.warmUp();
    clock.advance(1_000);
    // A rejection that nobody hears fails this run, and ends a daemon.
    await settled();
    expect(service.warm).toBe(0);
    Object.defineProperty(world.host, 'availableMemoryMib', { value: availableMemoryMib });
    clock.advance(15_000);
    await settled();
    expect(service.warm).toBe(1);
  });

  it('leaves nothing behind when the daemon stops, whatever becomes of sandboxes', async () => {
    for (const fate of ['keep', 'end'] as const) {
      const { world, service } = await filled(2);
      await service.close(fate);
      expect([fate, world.alive]).toEqual([fate, []]);
    }
  });
});

describe('admission', () => {
  it('takes no further snapshot and makes no further sandbox when an account stores more than it may, and suspends and resumes all the same', async () => {
    const { create, service } = ladder({ quotas: { storedMib: 0 } });
    const owner = await create();
    const take = async () => (await service.snapshots.take(owner)).done;
    await take();
    const refusal = { code: 'quota_exceeded', details: { quota: 'stored_mib', limit: 0, used: 1 } };
    for (const more of [take, create, () => service.clone(owner, 1, null, {})])
      await expect(more()).rejects.toMatchObject(refusal);
    await owner.suspend('');
    expect(owner.record.state).toBe('suspended');
    await owner.resume();
    await owner.end('', 'request');
    // It was ended, and would be another microVM to suspend.
    await expect(owner.start()).rejects.toMatchObject({ code: 'quota_exceeded' });
  });

  it('lets no two snapshots both be the last, however many are asked for at once', async () => {
    const { create, service } = ladder({ quotas: { snapshots: 2 } });
    const owner = await create();
    const asked = Array.from({ length: 5 }, async () => (await service.snapshots.take(owner)).done);
    const made = await Promise.allSettled(asked);
    expect(made.map(({ status }) => status).filter((status) => status === 'fulfilled')).toHaveLength(2);
  });

  it('refuses without memory or disk, says when to ask again, and records nothing', async () => {
    for (const [name, low] of [
      ['availableMemoryMib', 600],
      ['freeDiskMib', 1_000],
    ] as const) {
      const { world, create, stored } = ladder();
      world.host[name] = low;
      const refusal = await create().catch((error: unknown) => error);
      expect(refusal).toBeInstanceOf(InstaVMError);
      expect(refusal).toMatchObject({ code: 'capacity_unavailable', details: { retryAfterMs: expect.any(Number) } });
      expect(stored.size).toBe(0);
    }
  });

  it('counts what is promised to those that are being made', async () => {
    const { world, create } = ladder();
    // Room for two beside the reserve of 512.
    world.host.availableMemoryMib = 512 + 2 * 160 + 10;
    const made = await Promise.allSettled([create(), create(), create()]);
    expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    expect((await create()).record.state).toBe('running');
  });

  it('holds a resume to the same, and loses nothing by it', async () => {
    const { world, create } = ladder();
    const owner = await create();
    await owner.suspend('');
    world.host.availableMemoryMib = 100;
    await expect(owner.resume()).rejects.toMatchObject({ code: 'capacity_unavailable' });
    expect(owner.record.state).toBe('suspended');
    world.host.availableMemoryMib = 20_000;
    await owner.resume();
  });
});

describe('a snapshot', () => {
  it('is restored with what its source had when it was taken, as another sandbox', async () => {
    const { create, service, vms } = ladder();
    const owner = await create(77);
    const egress = {
      allowHttp: false,
      allowHttps: true,
      allowPublicRepos: false,
      allowedDomains: [],
      allowedCidrs: [],
    };
    await owner.remember(() => ({ egress }));
    for (const vm of vms) vm.memory = 11;
    const taken = await (await service.snapshots.take(owner, { name: 'n' })).done;
    await owner.remember(() => ({ egress: null }));
    for (const vm of vms) vm.memory = 12;
    const copy = await service.createFrom(ACCOUNT, await service.snapshots.getReady(ACCOUNT, taken.id), {});
    const { id, ttlSeconds, env, metadata, size, snapshotId } = copy.record;
    expect({ ttlSeconds, env, metadata, size, snapshotId, egress: copy.record.egress }).toEqual({
      ...{ ttlSeconds: 77, env: { A: 'b' }, metadata: { team: 'a' }, size: SIZE, snapshotId: taken.id, egress },
    });
    expect(id).not.toBe(owner.record.id);
    expect((await copy.guest()).identity?.machineIdHex).toBe(id.replaceAll('-', ''));
    expect(vms.map(({ memory }) => memory)).toEqual([12, 11]);
  });

  it('is not usable before it is ready, nor by another account', async () => {
    const { create, service } = ladder();
    const owner = await create();
    const { record, done } = await service.snapshots.take(owner, {});
    await expect(service.snapshots.getReady(ACCOUNT, record.id)).rejects.toMatchObject({ code: 'snapshot_not_ready' });
    await done;
    await service.snapshots.getReady(ACCOUNT, record.id);
    const other = service.snapshots.getReady('acct_other' as never, record.id);
    await expect(other).rejects.toMatchObject({ code: 'snapshot_not_found' });
  });

  it('that failed says why, has no files, and its sandbox runs on', async () => {
    const { create, service, vms, world } = ladder();
    const owner = await create();
    for (const vm of vms) vm.snapshotFails = true;
    const { record, done } = await service.snapshots.take(owner, {});
    await expect(done).rejects.toMatchObject({ code: 'snapshot_failed' });
    const failed = await service.snapshots.get(ACCOUNT, record.id);
    expect(failed).toMatchObject({ status: 'failed', lastError: 'it cannot be saved' });
    expect([world.disk.size, owner.record.state]).toEqual([0, 'running']);
  });

  it('can be deleted while it is restored, and its files go after that', async () => {
    const { create, service, world } = ladder();
    const owner = await create();
    const taken = await (await service.snapshots.take(owner, {})).done;
    world.beforeRestore = () => service.snapshots.delete(ACCOUNT, taken.id);
    expect((await service.createFrom(ACCOUNT, taken, {})).record.state).toBe('running');
    expect(world.snapshots.size).toBe(0);
    expect(world.disk.size).toBe(0);
  });

  it('of a suspended sandbox shares its files, which stay until both are gone', async () => {
    const { create, service, world } = ladder();
    const owner = await create();
    await owner.suspend('');
    const taken = await (await service.snapshots.take(owner, {})).done;
    expect(world.disk.size).toBe(1);
    await owner.resume();
    expect(world.disk.size).toBe(1);
    await service.snapshots.delete(ACCOUNT, taken.id);
    expect(world.disk.size).toBe(0);
  });

  it('expires when it was named by habit and nobody used it, and not otherwise', async () => {
    const { create, service, clock } = ladder();
    const owner = await create(86_400);
    const day = 86_400_000;
    const names = ['sandbox-1', 'sandbox-2', 'mine', null];
    const taken = await Promise.all(names.map(async (name) => (await service.snapshots.take(owner, { name })).done));
    clock.advance(6 * day);
    await service.snapshots.getReady(ACCOUNT, taken[1]?.id as never);
    clock.advance(2 * day);
    expect(await service.snapshots.expire('sandbox-', 7 * day)).toBe(1);
    const left = await service.snapshots.list(ACCOUNT, 10);
    expect(left.map(({ name }) => name)).toEqual(['sandbox-2', 'mine', null]);
  });

  it('does not expire when it is used while others do', async () => {
    const { create, service, clock, world } = ladder();
    const owner = await create(86_400);
    for (const name of ['sandbox-1', 'sandbox-2']) await (await service.snapshots.take(owner, { name })).done;
    clock.advance(8 * 86_400_000);
    const removed = world.disk.delete.bind(world.disk);
    world.disk.delete = (path) => {
      for (const record of world.snapshots.values()) world.snapshots.set(record.id, { ...record, usedAt: clock.now() });
      return removed(path);
    };
    expect(await service.snapshots.expire('sandbox-', 7 * 86_400_000)).toBe(1);
    expect(world.snapshots.size).toBe(1);
  });
});

describe('clones', () => {
  it('are all made, or none', async () => {
    const { create, service, world, stored } = ladder({ quotas: { sandboxes: 4 } });
    const owner = await create();
    const { clones } = await service.clone(owner, 3, null, { ttlSeconds: 30 });
    expect(new Set(clones.map(({ record }) => record.id)).size).toBe(3);
    expect(clones.map(({ record }) => record.ttlSeconds)).toEqual([30, 30, 30]);
    await clones[0]?.end('', 'request');
    await expect(service.clone(owner, 2, null, {})).rejects.toMatchObject({ code: 'quota_exceeded' });
    expect([...stored.values()].filter(({ state }) => state === 'running')).toHaveLength(3);
    expect([world.alive.length, world.disk.size, world.snapshots.size]).toEqual([3, 0, 0]);
  });

  it('leave nothing of the snapshot that they were to be made from when it fails', async () => {
    const { create, service, vms, world } = ladder();
    const owner = await create();
    for (const vm of vms) vm.snapshotFails = true;
    await expect(service.clone(owner, 2, null, {})).rejects.toMatchObject({ code: 'snapshot_failed' });
    expect([world.snapshots.size, world.disk.size]).toEqual([0, 0]);
  });

  it('are all made, and a restore is, when only the files that they were made from cannot be removed', async () => {
    const { create, service, world } = ladder();
    const owner = await create();
    const taken = await (await service.snapshots.take(owner, {})).done;
    world.disk.delete = () => {
      throw new Error('EIO: i/o error');
    };
    expect((await service.clone(owner, 2, null, {})).clones).toHaveLength(2);
    world.beforeRestore = () => service.snapshots.delete(ACCOUNT, taken.id);
    expect((await service.createFrom(ACCOUNT, taken, {})).record.state).toBe('running');
  });
});

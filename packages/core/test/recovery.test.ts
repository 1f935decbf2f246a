/** A daemon dies at every step of every operation; the next one finds the world as it was left. */
import { describe, expect, it } from 'vitest';
import { type SandboxOwner, STEPS, type Step } from '../src/index.ts';
import { ACCOUNT, type HandGuest, Life, ladder, World } from './fakes.ts';
import { settled } from './settled.ts';

type Owner = SandboxOwner<HandGuest>;
type Stage = { world: World; owner: Owner; service: ReturnType<typeof ladder>['service'] };

/** What is asked for, and what is done before. */
const OPERATIONS: Record<
  string,
  { before?: (stage: Stage) => Promise<unknown>; run: (stage: Stage) => Promise<unknown> }
> = {
  create: { before: ({ owner }) => owner.end('', 'request'), run: ({ owner }) => owner.start() },
  suspend: { run: ({ owner }) => owner.suspend('') },
  resume: { before: ({ owner }) => owner.suspend(''), run: ({ owner }) => owner.resume() },
  snapshot: { run: async ({ owner, service }) => (await service.snapshots.take(owner, { name: 'n' })).done },
  clone: { run: ({ owner, service }) => service.clone(owner, 1, null, {}) },
  end: { run: ({ owner }) => owner.end('', 'request') },
  'end of a suspended one': { before: ({ owner }) => owner.suspend(''), run: ({ owner }) => owner.end('', 'request') },
  delete: {
    before: async ({ owner, service }) => (await service.snapshots.take(owner, {})).done,
    run: async ({ service, world }) => {
      for (const record of world.snapshots.values()) await service.snapshots.delete(ACCOUNT, record.id);
    },
  },
};

async function crash(
  name: string,
  fatal: Step,
): Promise<{ world: World; hasReached: boolean; id: Owner['record']['id'] }> {
  const world = new World();
  const life = new Life();
  let armed = false;
  let hasReached = false;
  const reached = (step: Step): void => {
    if (!armed || step !== fatal) return;
    hasReached = true;
    life.isOver = true;
  };
  const { create, service } = ladder({ reached, life }, world);
  const owner = await create(3600);
  const stage = { world, owner, service };
  for (const vm of world.alive) vm.memory = 99;
  await OPERATIONS[name]?.before?.(stage);
  for (const vm of world.alive) vm.memory = 99;
  armed = true;
  OPERATIONS[name]?.run(stage).catch(() => {});
  await settled();
  await settled();
  return { world, hasReached, id: owner.record.id };
}

describe('after a crash', () => {
  const seen = new Set<Step>();

  it.each(Object.keys(OPERATIONS))(
    'at any step of %s, nothing is left half-made, and it can be asked for again',
    async (name) => {
      for (const step of STEPS) {
        const { world, hasReached, id } = await crash(name, step);
        // Most steps are not of this operation.
        if (!hasReached) continue;
        seen.add(step);
        const { service } = ladder({}, world);
        await service.recover(0);
        const states = [...world.stored.values()].map(({ state }) => state);
        const snapshots = [...world.snapshots.values()].map(({ status }) => status);
        const count = (wanted: string): number => [...states, ...snapshots].filter((state) => state === wanted).length;
        const resting = ['running', 'suspended', 'stopped', 'failed'];
        expect([step, states.filter((state) => !resting.includes(state))]).toEqual([step, []]);
        // One microVM for each that runs, and one saved state for each that is suspended or a ready snapshot.
        expect([step, world.alive.length]).toEqual([step, count('running')]);
        expect([step, world.disk.size]).toEqual([step, count('ready') + count('suspended')]);
        expect([step, count('building')]).toEqual([step, 0]);

        const owner = await service.get(ACCOUNT, id);
        const isKept = ['suspend', 'resume', 'snapshot', 'clone'].includes(name);
        if (isKept) expect(['running', 'suspended']).toContain(owner.record.state);
        if (name === 'create' || name === 'resume') await owner.start();
        else if (name === 'suspend') await owner.suspend('').then(() => owner.resume());
        else await OPERATIONS[name]?.run({ world, owner, service });
        const own = world.alive.find(({ incarnationId }) => incarnationId === owner.record.incarnationId);
        if (isKept) expect([step, own?.memory]).toEqual([step, 99]);
        for (const record of [...world.snapshots.values()]) await service.snapshots.remove(record);
        await service.close('end');
        expect([step, world.alive, world.disk.size, world.snapshots.size]).toEqual([step, [], 0, 0]);
      }
    },
  );

  it('every step was one of some operation', () => {
    expect(STEPS.filter((step) => !seen.has(step))).toEqual([]);
  });

  it('a sandbox that runs is taken over under the same incarnation, with the same lease', async () => {
    const world = new World();
    const life = new Life();
    const { create } = ladder({ life }, world);
    const { record } = await create(60);
    life.isOver = true;
    world.clock.advance(20_000);
    const { service } = ladder({}, world);
    await service.recover(0);
    const owner = await service.get(ACCOUNT, record.id);
    expect(owner.record).toMatchObject({ state: 'running', incarnationId: record.incarnationId, epoch: record.epoch });
    expect(owner.record.expiresAt).toEqual(record.expiresAt);
    await owner.guest();
    world.clock.advance(40_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
  });

  it('a sandbox whose lease ran out meanwhile ends', async () => {
    const world = new World();
    const life = new Life();
    const { create } = ladder({ life }, world);
    const { record } = await create(60);
    life.isOver = true;
    world.clock.advance(120_000);
    const { service } = ladder({}, world);
    await service.recover(0);
    world.clock.advance(0);
    await settled();
    expect((await service.get(ACCOUNT, record.id)).record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
  });

  it('a sandbox whose guest is mute, or whose microVM is gone, is lost, and says why', async () => {
    for (const how of ['mute', 'gone'] as const) {
      const world = new World();
      const life = new Life();
      const { create } = ladder({ life }, world);
      const { record } = await create(60);
      life.isOver = true;
      if (how === 'gone') world.alive[0]?.die();
      const { service, fail } = ladder({}, world);
      if (how === 'mute') fail.attach = new Error('silence');
      await service.recover(0);
      delete fail.attach;
      expect([how, world.stored.get(record.id)?.state, world.alive.length]).toEqual([how, 'failed', 0]);
      expect(world.stored.get(record.id)?.stateReason).toMatch(how === 'mute' ? /no longer answers/ : /no daemon ran/);
    }
  });

  it('a daemon that stops in order leaves what runs, if it is told to', async () => {
    const world = new World();
    const first = ladder({}, world);
    const { record } = await first.create(60);
    for (const vm of world.alive) vm.memory = 5;
    await first.service.close('keep');
    expect(world.alive).toHaveLength(1);
    const { service } = ladder({}, world);
    await service.recover(0);
    expect((await service.get(ACCOUNT, record.id)).record.state).toBe('running');
    expect(world.alive[0]?.memory).toBe(5);
  });

  it('warm microVMs of before are ended', async () => {
    const world = new World();
    const life = new Life();
    const { service: first } = ladder({ warm: 2, life }, world);
    first.warmUp();
    for (let time = 0; time < 3; time++) {
      world.clock.advance(1_000);
      await settled();
    }
    expect(world.alive).toHaveLength(2);
    life.isOver = true;
    const { service } = ladder({}, world);
    expect((await service.recover(0)).reaped).toBe(2);
    expect(world.alive).toEqual([]);
  });
});

/** What happens to an account whose credit is used up, and to one that nobody counts. */
import { describe, expect, it } from 'vitest';
import {
  type AccountId,
  Credit,
  HOUR_MS,
  Meter,
  newAccountId,
  newIncarnationId,
  newSandboxId,
  newSnapshotId,
  type Rates,
} from '../src/index.ts';
import { ACCOUNT, ladder, World } from './fakes.ts';
import { UsageMemory } from './usage-memory.ts';

/** The one size costs a dollar an hour. */
const RATES: Rates = { perVcpuHour: 500_000, perGibHour: 0, perStoredGibHour: 0, perEgressGib: 0 };
const DOLLAR = 1e6;

async function stage({ isEnforced = true, welcome = 1 } = {}) {
  const world = new World();
  const usage = new UsageMemory();
  const { clock } = world;
  const log = { info: () => {}, warn: () => {} };
  const meter = new Meter({ store: usage, rates: RATES, clock, log });
  const credit = new Credit({ ledger: usage, meter, clock, log, isEnforced, welcomeMicroDollars: welcome * DOLLAR });
  const rungs = ladder({ usage: meter, spending: credit }, world);
  await meter.load();
  await meter.takeOver({ find: async () => undefined, listUnsettled: async () => [] });
  const pass = async (ms: number): Promise<void> => {
    clock.advance(ms);
    await meter.tick();
    await credit.enforce((accountId, reason) => rungs.service.suspendAll(accountId, reason));
  };
  return { ...rungs, usage, meter, credit, pass, create: () => rungs.create(86_400) };
}

describe('credit', () => {
  it('is given once, and is less what was used, the present hour included', async () => {
    const { credit, create, pass } = await stage({ welcome: 50 });
    await create();
    await pass(HOUR_MS / 2);
    expect(await credit.remaining(ACCOUNT)).toBe(49.5 * DOLLAR);
    await pass(10 * HOUR_MS);
    expect(await credit.remaining(ACCOUNT)).toBe(39.5 * DOLLAR);
  });

  it('suspends what runs when it is used up, and lets nothing be made or resumed', async () => {
    const { credit, create, pass, service, world } = await stage();
    const one = await create();
    const other = await create();
    const { done } = await service.snapshots.take(other);
    const snapshot = await done;
    await pass(HOUR_MS / 2 - 1);
    expect(one.record.state).toBe('running');
    await pass(1);
    for (const { record } of [one, other])
      expect(record).toMatchObject({ state: 'suspended', stateReason: 'the credit of the account is used up' });
    const refused = { code: 'credit_exhausted', status: 403 };
    await expect(create()).rejects.toMatchObject(refused);
    await expect(service.createFrom(ACCOUNT, snapshot, {})).rejects.toMatchObject(refused);
    await expect(one.resume()).rejects.toMatchObject(refused);
    await expect(one.guest('suspended')).rejects.toMatchObject(refused);
    await expect(service.clone(one, 1, null, {})).rejects.toMatchObject(refused);
    expect(world.alive).toEqual([]);
    expect(await credit.remaining(ACCOUNT)).toBe(0);
  });

  it('lets them go on when it is topped up, once for each request', async () => {
    const { credit, create, pass, world } = await stage();
    const owner = await create();
    const [vm] = world.alive;
    if (vm !== undefined) vm.memory = 42;
    await pass(2 * HOUR_MS);
    expect(owner.record.state).toBe('suspended');
    const id = newSnapshotId();
    await credit.grant(ACCOUNT, 5 * DOLLAR, id, 'paid');
    await credit.grant(ACCOUNT, 5 * DOLLAR, id, 'paid');
    expect(await credit.remaining(ACCOUNT)).toBe(4 * DOLLAR);
    await owner.resume();
    expect([owner.record.state, world.alive[0]?.memory]).toEqual(['running', 42]);
  });

  it('stops nobody where it is not enforced', async () => {
    const { credit, create, pass } = await stage({ isEnforced: false });
    const owner = await create();
    await pass(5 * HOUR_MS);
    expect([owner.record.state, await credit.remaining(ACCOUNT)]).toEqual(['running', -4 * DOLLAR]);
    await create();
  });

  it('is looked at for every account, also while another one takes its time to be stopped', async () => {
    const { meter, credit, world, create } = await stage();
    const owner = await create();
    const [slow, other] = [newAccountId(), newAccountId()];
    for (const accountId of [slow, other])
      meter.began({ ...owner.record, accountId, id: newSandboxId(), incarnationId: newIncarnationId() });
    await owner.end('', 'request');
    world.clock.advance(2 * HOUR_MS);
    const asked: AccountId[] = [];
    const held = Promise.withResolvers<void>();
    const suspend = async (accountId: AccountId): Promise<void> => {
      asked.push(accountId);
      if (accountId === slow) await held.promise;
    };
    const first = credit.enforce(suspend);
    await expect.poll(() => asked).toEqual([slow, other]);
    await credit.enforce(suspend);
    expect(asked).toEqual([slow, other, other]);
    held.resolve();
    await first;
    await credit.enforce(suspend);
    expect(asked.slice(3)).toEqual([slow, other]);
  });

  it('is asked for again when something could not be suspended', async () => {
    const { create, pass, world } = await stage();
    const owner = await create();
    const [vm] = world.alive;
    if (vm !== undefined) vm.snapshotFails = true;
    await pass(2 * HOUR_MS);
    expect(owner.record.state).toBe('running');
    if (vm !== undefined) vm.snapshotFails = false;
    await pass(1);
    expect(owner.record.state).toBe('suspended');
  });
});

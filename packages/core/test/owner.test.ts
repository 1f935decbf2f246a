/** The life of sandboxes, with the world made by hand. */
import { InstaVMError } from '@instavm/wire';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CleanupStack } from '../src/index.ts';
import { ACCOUNT, type HandVm, ladder } from './fakes.ts';

/** Lets everything that is ready happen; nothing here waits for time. */
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const last = <T>(items: readonly T[]): T => items.at(-1) as T;

describe('a suspended sandbox', () => {
  it('holds no microVM, keeps its id, and comes back as a new incarnation with what was left of its lease', async () => {
    const { create, vms, clock, files } = ladder();
    const owner = await create(60);
    const first = owner.record.incarnationId;
    clock.advance(20_000);
    await owner.suspend();
    expect(owner.record).toMatchObject({ state: 'suspended', expiresAt: null, suspension: { leaseLeftMs: 40_000 } });
    expect([owner.isAlive, vms[0]?.killed, clock.scheduled]).toEqual([false, true, 0]);
    clock.advance(1_000_000);
    await settled();
    expect(owner.record.state).toBe('suspended');
    await owner.start();
    expect(owner.record).toMatchObject({ state: 'running', suspension: null, epoch: 2 });
    expect(owner.record.incarnationId).not.toBe(first);
    expect(owner.record.expiresAt?.getTime()).toBe(clock.now().getTime() + 40_000);
    expect(last(vms).from).toMatch(/^\/snapshots\/snap_/);
    expect(files.size).toBe(0);
  });

  it('is woken by whoever uses it, unless it may not resume by itself', async () => {
    const { create, vms } = ladder();
    const owner = await create();
    await owner.suspend();
    await Promise.all([owner.guest(), owner.guest(), owner.wokenGuest()]);
    expect(vms).toHaveLength(2);
    await owner.remember({ autoResume: false });
    await owner.suspend();
    await expect(owner.guest()).rejects.toMatchObject({ code: 'invalid_state' });
    await expect(owner.wokenGuest()).rejects.toMatchObject({ code: 'invalid_state' });
    await owner.start();
    expect(owner.record.state).toBe('running');
  });

  it('runs on when it cannot be kept, and stays suspended when it cannot be brought back', async () => {
    const { create, fail, vms, files } = ladder();
    const owner = await create();
    fail.snapshot = new InstaVMError('capacity_unavailable', 'no room');
    await expect(owner.suspend()).rejects.toMatchObject({ code: 'capacity_unavailable' });
    expect(owner.record).toMatchObject({ state: 'running', suspension: null });
    delete fail.snapshot;
    await owner.suspend();
    fail.restore = new InstaVMError('boot_failed', 'not now');
    await expect(owner.start()).rejects.toMatchObject({ code: 'boot_failed' });
    expect(owner.record).toMatchObject({ state: 'suspended', stateReason: 'not now' });
    expect(files.size).toBe(1);
    delete fail.restore;
    await owner.start();
    last(vms).die();
    await settled();
    expect(owner.record.state).toBe('failed');
  });

  it('leaves nothing when it is ended', async () => {
    const { create, files } = ladder();
    const owner = await create();
    await owner.suspend();
    await owner.end('enough', 'request');
    expect([owner.record.state, owner.record.suspension, files.size]).toEqual(['stopped', null, 0]);
  });

  it('is what the end of a lease makes of one that asks for it, with a fresh lease afterwards', async () => {
    const { create, clock } = ladder();
    const owner = await create(60, { autoSuspend: true });
    clock.advance(60_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'suspended', suspension: { leaseLeftMs: 60_000 } });
  });

  it('survives the end of the daemon, and an interrupted suspension counts only when its files are whole', async () => {
    const { create, service, stored, files } = ladder();
    const [kept, torn, done] = [await create(), await create(), await create()];
    await kept.suspend();
    await service.close();
    expect(kept.record.state).toBe('suspended');
    // As a daemon leaves them that is killed in the middle.
    for (const owner of [torn, done]) {
      const snapshotId = `snap_${owner === torn ? 'a' : 'b'.repeat(20)}` as never;
      stored.set(owner.record.id, { ...owner.record, state: 'suspending', suspension: { snapshotId, leaseLeftMs: 1 } });
    }
    files.add(`/snapshots/snap_${'b'.repeat(20)}`).add('/snapshots/snap_of_nobody');
    await service.reconcile(1);
    expect([kept, torn, done].map(({ record }) => stored.get(record.id)?.state)).toEqual([
      'suspended',
      'stopped',
      'suspended',
    ]);
    expect(files.size).toBe(2);
  });
});

describe('a snapshot', () => {
  it('carries what its sandbox had, and begins any number of others', async () => {
    const { create, service, snapshots, vms } = ladder();
    const egress = {
      allowHttp: false,
      allowHttps: false,
      allowPublicRepos: false,
      allowedDomains: ['a'],
      allowedCidrs: [],
    };
    const owner = await create(77, { egress, metadata: { a: 1 } });
    const { record, taken } = await owner.snapshot('mine');
    expect(record).toMatchObject({ status: 'building', name: 'mine' });
    await taken;
    expect(await snapshots.get(ACCOUNT, record.id)).toMatchObject({ status: 'ready', storedBytes: 7 });
    const others = await Promise.all([1, 2].map(() => service.createFrom(ACCOUNT, record.id, {})));
    for (const other of others) {
      expect(other.record).toMatchObject({ egress, metadata: { a: 1 }, ttlSeconds: 77, env: { A: 'b' } });
      expect(other.record.id).not.toBe(owner.record.id);
    }
    expect(vms.slice(1).map(({ from }) => from)).toEqual(Array(2).fill(`/snapshots/${record.id}`));
    await expect(service.createFrom('acct_other' as never, record.id, {})).rejects.toMatchObject({
      code: 'snapshot_not_found',
    });
  });

  it('that failed says why, is used by nobody, and the sandbox runs on', async () => {
    const { create, service, snapshots, fail } = ladder();
    const owner = await create();
    fail.snapshot = new InstaVMError('capacity_unavailable', 'no room');
    const { record, taken } = await owner.snapshot('mine');
    await expect(taken).rejects.toMatchObject({ code: 'capacity_unavailable' });
    expect(await snapshots.get(ACCOUNT, record.id)).toMatchObject({ status: 'failed', error: 'no room' });
    await expect(service.createFrom(ACCOUNT, record.id, {})).rejects.toMatchObject({ code: 'snapshot_not_ready' });
    expect(owner.record.state).toBe('running');
    await owner.end('x', 'request');
    await expect(owner.snapshot('late')).rejects.toMatchObject({ code: 'invalid_state' });
  });

  it('is taken at the end of a lease that asks for it', async () => {
    const { create, clock, snapshots } = ladder();
    const owner = await create(60, { snapshotOnExpiry: 'last' });
    clock.advance(60_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
    expect(await snapshots.list(ACCOUNT, 9)).toMatchObject([{ name: 'last', status: 'ready' }]);
  });

  it('in between a fork goes, unless it has a name', async () => {
    const { create, service, kept, files } = ladder();
    const owner = await create();
    const fork = await service.fork(owner, undefined);
    expect([fork.owner.record.state, kept.size, files.size]).toEqual(['running', 0, 0]);
    await service.fork(owner, 'kept');
    expect([kept.size, files.size]).toEqual([1, 1]);
  });

  it('that the Agents SDK left is deleted when nobody used it, and no other', async () => {
    const { create, snapshots, clock } = ladder();
    const owner = await create(10_000);
    for (const name of ['sandbox-0123', 'mine']) await (await owner.snapshot(name)).taken;
    expect(await snapshots.expire('sandbox-', 1000)).toBe(0);
    clock.advance(1001);
    expect(await snapshots.expire('sandbox-', 1000)).toBe(1);
    expect((await snapshots.list(ACCOUNT, 9)).map(({ name }) => name)).toEqual(['mine']);
  });
});

describe('a sandbox', () => {
  it('runs when it is created, with an identity of its own, and its record says so', async () => {
    const { create, guests, stored } = ladder();
    const owner = await create();
    expect(owner.record).toMatchObject({ state: 'running', epoch: 1 });
    expect(stored.get(owner.record.id)).toEqual(owner.record);
    expect(guests[0]?.identity).toMatchObject({ env: { A: 'b' }, machineIdHex: owner.record.id.replaceAll('-', '') });
  });

  it('ends once, however many ask, and releases its microVM and its timer', async () => {
    const { create, vms, clock } = ladder();
    const owner = await create();
    await Promise.all([owner.end('a', 'request'), owner.end('b', 'request'), owner.end('c', 'expiry')]);
    expect(owner.record).toMatchObject({ state: 'stopped', stateReason: 'a', endCause: 'request', expiresAt: null });
    expect(vms[0]?.killed).toBe(true);
    expect(clock.scheduled).toBe(0);
  });

  it('ends when its lease does, not before, and a command gives it a fresh microVM and lease', async () => {
    const { create, clock, vms } = ladder();
    const owner = await create(60);
    clock.advance(59_999);
    await settled();
    expect(owner.record.state).toBe('running');
    clock.advance(1);
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
    await expect(owner.guest()).rejects.toMatchObject({ code: 'lease_expired' });
    await owner.wokenGuest();
    expect(owner.record).toMatchObject({ state: 'running', epoch: 2 });
    expect(owner.record.expiresAt?.getTime()).toBe(clock.now().getTime() + 60_000);
    expect(vms).toHaveLength(2);
  });

  it('stays ended when its owner ended it, until it is started by name', async () => {
    const { create } = ladder();
    const owner = await create();
    await owner.end('enough', 'request');
    await expect(owner.wokenGuest()).rejects.toMatchObject({ code: 'invalid_state' });
    await owner.start();
    expect(owner.record.state).toBe('running');
  });

  it('fails when its microVM dies, and late news of an old one changes nothing', async () => {
    const { create, vms } = ladder();
    const owner = await create();
    last(vms).die();
    await settled();
    expect(owner.record).toMatchObject({ state: 'failed', endCause: 'loss' });
    await owner.wokenGuest();
    vms[0]?.die();
    await settled();
    expect(owner.record.state).toBe('running');
  });

  it('is attached again when only its channel drops', async () => {
    const { create, guests, vms } = ladder();
    const owner = await create();
    guests[0]?.close();
    await settled();
    expect(owner.record.state).toBe('running');
    expect(await owner.guest()).toBe(guests[1]);
    expect(vms).toHaveLength(1);
  });

  it('is given up when its channel drops again and again', async () => {
    const { create, guests, clock } = ladder();
    const owner = await create(86_400);
    for (let time = 0; time < 17; time++) {
      last(guests).close();
      await settled();
    }
    clock.advance(1_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'failed', stateReason: 'the guest agent no longer answers' });
  });

  it('fails with the reason, and leaves no microVM, when its guest does not answer', async () => {
    const { service, create, fail, vms, stored } = ladder();
    fail.attach = new Error('silence');
    await expect(create()).rejects.toThrow('silence');
    expect(vms.every(({ killed }) => killed)).toBe(true);
    const record = [...stored.values()][0];
    expect(record).toMatchObject({ state: 'failed', expiresAt: null });
    delete fail.attach;
    const owner = await service.get(ACCOUNT, record?.id as never);
    await owner.wokenGuest();
    expect(owner.record.state).toBe('running');
  });

  it('is as it was when its record cannot be written', async () => {
    const { create, fail } = ladder();
    const owner = await create();
    fail.update = new Error('disk full');
    await expect(owner.remember({ metadata: { a: 1 } })).rejects.toThrow('disk full');
    expect(owner.record.metadata).toEqual({});
  });

  it('says what is left when it cannot be torn down, and can be ended again', async () => {
    const { create, vms } = ladder();
    const owner = await create();
    last(vms).killFails = true;
    await expect(owner.end('x', 'request')).rejects.toMatchObject({ code: 'teardown_incomplete' });
    expect(owner.record.state).toBe('failed');
    await owner.end('x', 'request');
    expect(owner.record.state).toBe('stopped');
  });

  it('belongs to its account', async () => {
    const { create, service } = ladder();
    const owner = await create();
    await expect(service.get('acct_other' as never, owner.record.id)).rejects.toMatchObject({
      code: 'sandbox_not_found',
    });
  });

  it('is refused beyond the limit and after the end of the daemon, without a record', async () => {
    const { create, service, stored } = ladder({ maxAlivePerAccount: 2 });
    const made = await Promise.allSettled([create(), create(), create()]);
    expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    expect(stored.size).toBe(2);
    await service.close();
    await expect(create()).rejects.toMatchObject({ code: 'shutting_down' });
    expect([...stored.values()].every(({ state }) => state === 'stopped')).toBe(true);
  });

  it('keeps its promises over any history', async () => {
    const step = fc.oneof(fc.constantFrom('start', 'wake', 'end', 'die', 'drop'), fc.integer({ min: 1, max: 90_000 }));
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 25 }), async (steps) => {
        const { create, vms, guests, clock, stored } = ladder();
        const owner = await create(60);
        const waiting: Promise<unknown>[] = [];
        const asked = (promise: Promise<unknown>): void => void waiting.push(promise.catch(() => {}));
        for (const next of steps) {
          if (next === 'start') asked(owner.start());
          else if (next === 'wake') asked(owner.wokenGuest());
          else if (next === 'end') asked(owner.end('asked', 'request'));
          else if (next === 'die') vms.findLast((vm: HandVm) => !vm.killed)?.die();
          else if (next === 'drop') last(guests).close();
          else clock.advance(next);
          if (clock.now().getTime() % 2 === 0) await settled();
        }
        await Promise.all(waiting);
        clock.advance(1_000);
        await settled();
        const alive = vms.filter(({ killed }) => !killed);
        // One microVM while it runs, none otherwise; the record is what is true; a lease while it runs only.
        expect(alive).toHaveLength(owner.record.state === 'running' ? 1 : 0);
        expect(['running', 'stopped', 'failed']).toContain(owner.record.state);
        expect(stored.get(owner.record.id)).toEqual(owner.record);
        expect(owner.record.expiresAt === null).toBe(owner.record.state !== 'running');
        expect(owner.record.epoch).toBe(vms.length);
      }),
      { numRuns: 150 },
    );
  });
});

describe('a clean-up stack', () => {
  it('runs once, last first, past failures, and joins the errors', async () => {
    const order: number[] = [];
    const stack = new CleanupStack();
    stack.push(() => void order.push(1));
    stack.push(() => {
      order.push(2);
      throw new Error('two');
    });
    stack.push(async () => void order.push(3));
    const [first, second] = [stack.run(), stack.run()];
    await expect(first).rejects.toMatchObject({ errors: [new Error('two')] });
    await expect(second).rejects.toBeInstanceOf(AggregateError);
    expect(order).toEqual([3, 2, 1]);
  });
});

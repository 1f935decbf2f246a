/** The life of sandboxes, with the world made by hand. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CleanupStack } from '../src/index.ts';
import { ACCOUNT, type HandVm, ladder } from './fakes.ts';

/** Lets everything that is ready happen; nothing here waits for time. */
const settled = async (): Promise<void> => {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
};
const last = <T>(items: readonly T[]): T => items.at(-1) as T;

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
    await owner.guest('always');
    expect(owner.record).toMatchObject({ state: 'running', epoch: 2 });
    expect(owner.record.expiresAt?.getTime()).toBe(clock.now().getTime() + 60_000);
    expect(vms).toHaveLength(2);
  });

  it('ends when its lease does where the clock was set back meanwhile', async () => {
    const { create, clock } = ladder();
    const owner = await create(60);
    clock.setBack(10_000);
    clock.advance(60_000);
    await settled();
    expect(owner.record.state).toBe('running');
    clock.advance(10_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
  });

  it('stays ended when its owner ended it, until it is started by name', async () => {
    const { create } = ladder();
    const owner = await create();
    await owner.end('enough', 'request');
    await expect(owner.guest('always')).rejects.toMatchObject({ code: 'invalid_state' });
    await owner.start();
    expect(owner.record.state).toBe('running');
  });

  it('fails when its microVM dies, and late news of an old one changes nothing', async () => {
    const { create, vms } = ladder();
    const owner = await create();
    last(vms).die();
    await settled();
    expect(owner.record).toMatchObject({ state: 'failed', endCause: 'loss' });
    await owner.guest('always');
    vms[0]?.die();
    await settled();
    expect(owner.record.state).toBe('running');
  });

  it('says that it is lost to who asks for its guest while what is left of it is removed', async () => {
    const { create, vms } = ladder();
    const owner = await create();
    const { promise: removed, resolve: isRemoved } = Promise.withResolvers<void>();
    last(vms).kill = () => removed;
    last(vms).die();
    await settled();
    const asked = owner.guest();
    const outcome = expect(asked).rejects.toMatchObject({ code: 'invalid_state', details: { state: 'failed' } });
    await settled();
    isRemoved();
    await outcome;
  });

  it('hands out no guest whose channel could not be opened again', async () => {
    const { create, guests, fail, clock } = ladder();
    const owner = await create(86_400);
    fail.attach = new Error('silence');
    last(guests).close();
    await settled();
    const asked = owner.guest();
    const outcome = expect(asked).rejects.toMatchObject({ code: 'invalid_state', details: { state: 'failed' } });
    clock.advance(60_000);
    await settled();
    await outcome;
  });

  it('is attached again when only its channel drops', async () => {
    const { create, guests, vms } = ladder();
    const owner = await create();
    guests[0]?.close();
    await settled();
    expect(owner.record.state).toBe('running');
    (await owner.guest()).identity = { hostname: 'x', machineIdHex: '', env: {} };
    expect(guests[1]?.identity?.hostname).toBe('x');
    expect(vms).toHaveLength(1);
  });

  it('is asked again when it does not see at once that a host is there', async () => {
    const { create, fail, vms } = ladder();
    let refusals = 2;
    Object.defineProperty(fail, 'attach', { get: () => (refusals-- > 0 ? new Error('not yet') : undefined) });
    expect((await create()).record.state).toBe('running');
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
    await owner.guest('always');
    expect(owner.record.state).toBe('running');
  });

  it('is as it was when its record cannot be written', async () => {
    const { create, fail } = ladder();
    const owner = await create();
    fail.update = new Error('disk full');
    await expect(owner.remember(() => ({ metadata: { a: 1 } }))).rejects.toThrow('disk full');
    expect(owner.record.metadata).toEqual({ team: 'a' });
  });

  it('loses none of several changes at once', async () => {
    const { create } = ladder();
    const owner = await create();
    const names = ['A', 'B', 'C'];
    await Promise.all(names.map((name) => owner.remember(({ env }) => ({ env: { ...env, [name]: '1' } }))));
    expect(Object.keys(owner.record.env)).toEqual(expect.arrayContaining(names));
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
    const { create, service, stored } = ladder({ quotas: { sandboxes: 2 } });
    const made = await Promise.allSettled([create(), create(), create()]);
    expect(made.map(({ status }) => status).sort()).toEqual(['fulfilled', 'fulfilled', 'rejected']);
    expect(stored.size).toBe(2);
    await service.close('end');
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
          else if (next === 'wake') asked(owner.guest('always'));
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

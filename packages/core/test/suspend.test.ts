/** Suspending, resuming and what happens without anyone asking, with the world made by hand. */
import { InstaVMError } from '@instavm/wire';
import { describe, expect, it } from 'vitest';
import { ACCOUNT, ladder } from './fakes.ts';
import { settled } from './settled.ts';

const last = <T>(items: readonly T[]): T => items.at(-1) as T;

describe('a suspended sandbox', () => {
  it('holds no microVM, and goes on with its memory in a new incarnation', async () => {
    const { create, world, vms } = ladder();
    const owner = await create();
    last(vms).memory = 42;
    const { id, incarnationId } = owner.record;
    await owner.suspend('enough');
    expect(owner.record).toMatchObject({ state: 'suspended', stateReason: 'enough', endCause: null, expiresAt: null });
    expect([world.alive, world.disk.size]).toEqual([[], 1]);
    await owner.resume();
    expect(owner.record).toMatchObject({ id, state: 'running', epoch: 2, stateReason: null, savedIn: null });
    expect(owner.record.incarnationId).not.toBe(incarnationId);
    expect(last(vms).memory).toBe(42);
    expect(world.disk.size).toBe(0);
  });

  it('keeps the rest of its lease, however long it sleeps', async () => {
    const { create, clock } = ladder();
    const owner = await create(60);
    clock.advance(20_000);
    await owner.suspend('');
    clock.advance(86_400_000);
    await settled();
    await owner.resume();
    expect(owner.record.expiresAt?.getTime()).toBe(clock.now().getTime() + 40_000);
    clock.advance(40_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
  });

  it('has its guest flush before it is saved, and personalized when it is back', async () => {
    const { create, guests } = ladder();
    const owner = await create();
    await owner.suspend('');
    expect(guests[0]?.hasSynced).toBe(true);
    await owner.resume();
    expect(guests[1]?.identity?.machineIdHex).toBe(owner.record.id.replaceAll('-', ''));
  });

  it('is woken for a guest only when it allows it', async () => {
    const { create } = ladder();
    const owner = await create(60, { autoResume: false });
    await owner.suspend('');
    for (const wake of ['never', 'suspended', 'always'] as const)
      await expect(owner.guest(wake)).rejects.toMatchObject({ code: 'sandbox_suspended' });
    await owner.remember(({ lifecycle }) => ({ lifecycle: { ...lifecycle, autoResume: true } }));
    await expect(owner.guest()).rejects.toMatchObject({ code: 'sandbox_suspended' });
    await owner.guest('suspended');
    expect(owner.record.state).toBe('running');
  });

  it('is not brought back by who only wants what was', async () => {
    const { create, vms } = ladder();
    const owner = await create();
    last(vms).die();
    await settled();
    await expect(owner.guest('suspended')).rejects.toMatchObject({ code: 'invalid_state' });
    await expect(owner.resume()).rejects.toMatchObject({ code: 'invalid_state' });
    expect(owner.record.state).toBe('failed');
  });

  it('stays suspended, with nothing lost, when it cannot be resumed, and can be later', async () => {
    const { create, fail, world, vms } = ladder();
    const owner = await create();
    last(vms).memory = 7;
    await owner.suspend('why');
    for (const where of ['restore', 'attach'] as const) {
      fail[where] = new Error('no');
      await expect(owner.resume()).rejects.toThrow('no');
      delete fail[where];
      expect(owner.record).toMatchObject({ state: 'suspended', stateReason: 'why' });
      expect([world.alive, world.disk.size]).toEqual([[], 1]);
    }
    await owner.resume();
    expect(last(vms).memory).toBe(7);
  });

  it('says so when its saved state was damaged', async () => {
    const { create, world } = ladder();
    const owner = await create();
    await owner.suspend('');
    world.disk.clear();
    await expect(owner.resume()).rejects.toMatchObject({ code: 'snapshot_damaged' });
    expect(owner.record.state).toBe('suspended');
  });

  it('leaves nothing on disk when it is ended', async () => {
    const { create, world } = ladder();
    const owner = await create();
    await owner.suspend('');
    await owner.end('enough', 'request');
    expect([owner.record.state, owner.record.savedIn, world.disk.size]).toEqual(['stopped', null, 0]);
  });
});

describe('a sandbox that cannot be saved', () => {
  it('is suspended later when nobody uses it still', async () => {
    const { create, clock, fail } = ladder();
    const owner = await create(86_400, { idleSuspendSeconds: 60 });
    fail.update = new Error('the disk is full');
    clock.advance(60_000);
    await settled();
    expect(owner.record.state).toBe('running');
    delete fail.update;
    clock.advance(60_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'suspended', stateReason: 'nobody used it' });
  });

  it('runs on, attached as before, with its clock set', async () => {
    const { create, vms, world, guests } = ladder();
    const owner = await create();
    last(vms).snapshotFails = true;
    for (const guest of guests) guest.identity = undefined;
    await expect(owner.suspend('')).rejects.toMatchObject({ code: 'snapshot_failed' });
    expect(owner.record).toMatchObject({ state: 'running', savedIn: null, leaseLeftMs: null });
    const guest = await owner.guest();
    expect([guest.identity?.env, guests.length]).toEqual([{ A: 'b' }, 1]);
    expect([world.alive.length, world.disk.size]).toEqual([1, 0]);
  });

  it('is not touched when its guest does not answer', async () => {
    const { create, guests, vms } = ladder();
    const owner = await create();
    last(guests).isMute = true;
    await expect(owner.suspend('')).rejects.toMatchObject({ code: 'guest_unresponsive' });
    expect([owner.record.state, last(vms).killed]).toEqual(['running', false]);
  });

  it('is lost when its microVM dies over it, however it died', async () => {
    for (const how of ['by itself', 'by its backend'] as const) {
      const { create, vms } = ladder();
      const owner = await create();
      last(vms).snapshotKills = how === 'by its backend';
      const suspending = owner.suspend('');
      if (how === 'by itself') last(vms).die();
      await expect(suspending).rejects.toThrow();
      await settled();
      expect([how, owner.record]).toMatchObject([how, { state: 'failed', endCause: 'loss', savedIn: null }]);
    }
  });

  it('is lost when that takes too long, and what is written all the same does not stay', async () => {
    for (const asked of ['suspend', 'snapshot'] as const) {
      const { create, clock, service, vms, world } = ladder();
      const owner = await create(86_400);
      const { promise: stored, resolve: isStored } = Promise.withResolvers<void>();
      last(vms).whileStored = () => stored;
      const saving = asked === 'suspend' ? owner.suspend('') : (await service.snapshots.take(owner, {})).done;
      await settled();
      clock.advance(180_000);
      await expect(saving).rejects.toMatchObject({ code: 'snapshot_failed' });
      await settled();
      expect([asked, owner.record.state, world.alive]).toEqual([asked, 'failed', []]);
      isStored();
      await settled();
      expect([asked, world.disk.size]).toEqual([asked, 0]);
    }
  });

  it('is refused without room on the disk', async () => {
    const { create, world } = ladder();
    const owner = await create();
    world.host.freeDiskMib = 1_100;
    await expect(owner.suspend('')).rejects.toMatchObject({ code: 'capacity_unavailable' });
    expect(owner.record.state).toBe('running');
  });
});

describe('a sandbox whose channel ends with every snapshot', () => {
  const tick = (): Promise<unknown> => new Promise((resolve) => setImmediate(resolve));

  it('is attached again, with its clock set, as often as it is saved', async () => {
    const { create, service, guests, vms, world } = ladder();
    const owner = await create();
    last(vms).duringSnapshot = () => last(guests).close();
    for (let taken = 1; taken <= 20; taken++) {
      await (await service.snapshots.take(owner, {})).done;
      expect(guests).toHaveLength(1 + taken);
      expect(last(guests).identity).toMatchObject({ env: { A: 'b' } });
      expect((await owner.guest()).identity).toBeDefined();
    }
    expect(owner.record.state).toBe('running');
    // Its network is not made to wait for what it did not do.
    expect(last(world.networks).forgiven).toBe(20);
  });

  it('is attached again when it could not be suspended', async () => {
    const { create, guests, vms } = ladder();
    const owner = await create();
    last(vms).snapshotFails = true;
    last(vms).duringSnapshot = () => last(guests).close();
    await expect(owner.suspend('enough')).rejects.toMatchObject({ code: 'snapshot_failed' });
    expect(guests).toHaveLength(2);
    expect(owner.record.state).toBe('running');
    expect(last(guests).identity).toBeDefined();
  });

  it('is attached again, with its clock set, as often as it could not be saved, also when its end is noticed late', async () => {
    const { create, guests, vms } = ladder();
    const owner = await create();
    last(vms).snapshotFails = true;
    last(vms).duringSnapshot = () => {
      const guest = last(guests);
      setImmediate(() => guest.close());
      guest.personalize = async () => {
        await guest.closed;
        throw new InstaVMError('guest_lost', 'its channel broke');
      };
    };
    for (let tried = 1; tried <= 20; tried++) {
      await expect(owner.suspend('enough')).rejects.toMatchObject({ code: 'snapshot_failed' });
      expect(guests).toHaveLength(1 + tried);
      expect(last(guests).identity).toMatchObject({ env: { A: 'b' } });
    }
    expect(owner.record.state).toBe('running');
  });

  it('is lost all the same when its guest ends every channel that is opened after one that failed', async () => {
    const { create, guests, vms, clock } = ladder();
    const owner = await create();
    last(vms).snapshotFails = true;
    last(vms).duringSnapshot = () => {
      last(guests).close();
      guests.push = (guest) => {
        // It has answered by then.
        void Promise.resolve().then(() => guest?.close());
        return Array.prototype.push.call(guests, guest);
      };
    };
    const suspended = expect(owner.suspend('enough')).rejects.toMatchObject({ code: 'snapshot_failed' });
    await settled();
    clock.advance(1_000);
    await suspended;
    await settled();
    expect(owner.record).toMatchObject({ state: 'failed', stateReason: 'the guest agent no longer answers' });
  });

  it('is not attached again when it is suspended', async () => {
    const { create, guests, vms } = ladder();
    const owner = await create();
    last(vms).duringSnapshot = () => last(guests).close();
    await owner.suspend('enough');
    await tick();
    expect(guests).toHaveLength(1);
    expect(owner.record.state).toBe('suspended');
  });
});

describe('the guest of a sandbox', () => {
  it('is given up when it answers none of three pings', async () => {
    const { create, guests, clock } = ladder();
    const owner = await create(86_400);
    last(guests).isMute = true;
    for (let time = 0; time < 3; time++) {
      expect(owner.record.state).toBe('running');
      clock.advance(60_000);
      await settled();
    }
    expect(owner.record).toMatchObject({ state: 'failed', stateReason: 'the guest agent no longer answers' });
  });
});

describe('at the end of its lease', () => {
  it('a sandbox is suspended if it asks for it, and gets a new lease when it is woken', async () => {
    const { create, clock } = ladder();
    const owner = await create(60, { autoSuspend: true });
    clock.advance(60_000);
    await settled();
    expect(owner.record).toMatchObject({ state: 'suspended', stateReason: 'its lifetime ran out' });
    await owner.guest('suspended');
    expect(owner.record.expiresAt?.getTime()).toBe(clock.now().getTime() + 60_000);
  });

  it('is tried again when it cannot be suspended, and ended when that does not help', async () => {
    const { create, clock, vms } = ladder();
    const owner = await create(60, { autoSuspend: true });
    last(vms).snapshotFails = true;
    clock.advance(60_000);
    for (let time = 0; time < 5; time++) {
      await settled();
      expect([time, owner.record.state]).toEqual([time, 'running']);
      clock.advance(30_000);
    }
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
  });

  it('a snapshot is kept if it asks for it', async () => {
    const { create, clock, service, vms } = ladder();
    const owner = await create(60, { snapshotOnExpiry: 'last' });
    last(vms).memory = 3;
    clock.advance(60_000);
    await settled();
    expect(owner.record.state).toBe('stopped');
    const [kept] = await service.snapshots.list(ACCOUNT, 10);
    expect(kept).toMatchObject({ name: 'last', status: 'ready' });
  });

  it('a snapshot that fails does not keep the sandbox', async () => {
    const { create, clock, service, vms } = ladder();
    const owner = await create(60, { snapshotOnExpiry: 'last' });
    last(vms).snapshotFails = true;
    clock.advance(60_000);
    await settled();
    expect([owner.record.state, owner.record.endCause]).toEqual(['stopped', 'expiry']);
    expect((await service.snapshots.list(ACCOUNT, 10)).map(({ status }) => status)).toEqual(['failed']);
  });

  it('no snapshot is kept of what was ended before', async () => {
    const { create, service } = ladder();
    const owner = await create(60, { snapshotOnExpiry: 'last' });
    await owner.end('', 'request');
    expect(await service.snapshots.list(ACCOUNT, 10)).toEqual([]);
  });

  it('a snapshot is kept also when it ends over a suspend that fails', async () => {
    const { create, clock, service, vms } = ladder();
    const owner = await create(60, { snapshotOnExpiry: 'last' });
    const { promise: stored, reject } = Promise.withResolvers<void>();
    last(vms).whileStored = () => stored;
    const suspending = owner.suspend('');
    await settled();
    clock.advance(60_000);
    await settled();
    last(vms).whileStored = async () => {};
    reject(new Error('no'));
    await expect(suspending).rejects.toThrow('no');
    await settled();
    expect(owner.record).toMatchObject({ state: 'stopped', endCause: 'expiry' });
    expect(await service.snapshots.list(ACCOUNT, 10)).toMatchObject([{ name: 'last', status: 'ready' }]);
  });

  it('what was left to the next daemon is that one’s to end', async () => {
    const { create, clock, service, vms, stored } = ladder();
    const owner = await create(60, { snapshotOnExpiry: 'last' });
    const { promise: gate, resolve: open } = Promise.withResolvers<void>();
    last(vms).whileStored = () => gate;
    const taken = (await service.snapshots.take(owner, {})).done;
    await settled();
    const closed = service.close('keep');
    // Behind the snapshot that is being taken, and behind the leaving.
    clock.advance(60_000);
    await settled();
    open();
    await Promise.all([taken, closed]);
    await settled();
    expect([stored.get(owner.record.id)?.state, last(vms).killed]).toEqual(['running', false]);
  });

  it('is not that of a later incarnation', async () => {
    const { create, clock } = ladder();
    const owner = await create(60);
    const waiting = [owner.end('', 'request'), owner.start()];
    clock.advance(60_000);
    await Promise.all(waiting);
    await settled();
    expect(owner.record.state).toBe('running');
  });
});

describe('an idle sandbox', () => {
  it('is suspended after its time, counted from its last use', async () => {
    const { create, clock } = ladder();
    const owner = await create(3600, { idleSuspendSeconds: 10 });
    const release = owner.hold();
    clock.advance(60_000);
    await settled();
    expect(owner.record.state).toBe('running');
    release();
    release();
    clock.advance(9_999);
    await settled();
    expect(owner.record.state).toBe('running');
    clock.advance(1);
    await settled();
    expect(owner.record).toMatchObject({ state: 'suspended', stateReason: 'nobody used it' });
  });

  it('is not suspended under a use that began in the same moment', async () => {
    const { create, clock } = ladder();
    const owner = await create(3600, { idleSuspendSeconds: 10 });
    clock.advance(10_000);
    const release = owner.hold();
    await settled();
    await owner.guest('suspended');
    expect(owner.record).toMatchObject({ state: 'running', epoch: 1 });
    release();
  });
});

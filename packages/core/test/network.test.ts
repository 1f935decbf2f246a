/** A policy lives with its sandbox: from the first packet, through every incarnation and copy, until the end. */
import { describe, expect, it } from 'vitest';
import type { EgressPolicy } from '../src/index.ts';
import { ACCOUNT, CLOSED_NETWORK, ladder } from './fakes.ts';

const only = (domain: string): EgressPolicy => ({ ...CLOSED_NETWORK, allowedDomains: [domain] });

describe('the network of a sandbox', () => {
  it('has the policy that was sent before there was a microVM, and a changed one at once', async () => {
    const { service, world, create } = ladder();
    const owner = await create();
    expect(world.networks.map(({ policies }) => policies)).toEqual([[null]]);
    await owner.end('deleted', 'request');
    await owner.remember(() => ({ egress: only('a.example') }));
    await owner.start();
    await owner.remember(() => ({ egress: only('b.example') }));
    await owner.remember(() => ({ metadata: {} }));
    expect(world.networks[1]?.policies).toEqual([only('a.example'), only('b.example')]);
    expect(world.networks[1]?.sandboxId).toBe(owner.record.id);
    await service.close('end');
    expect(world.networks.every(({ isClosed }) => isClosed)).toBe(true);
  });

  it('is the same for a warm microVM, which has none before it is somebody’s', async () => {
    const { clock, service, world, create } = ladder({ warm: 1 });
    service.warmUp();
    clock.advance(1_000);
    await expect.poll(() => service.warm).toBe(1);
    expect(world.networks).toEqual([]);
    const owner = await create();
    expect(world.networks.map(({ sandboxId }) => sandboxId)).toEqual([owner.record.id]);
    await service.close('end');
  });

  it('goes with a suspension, and comes back with the policy of now', async () => {
    const { world, create } = ladder();
    const owner = await create();
    await owner.remember(() => ({ egress: only('a.example') }));
    await owner.suspend('test');
    expect(world.networks[0]?.isClosed).toBe(true);
    await owner.remember(() => ({ egress: only('b.example') }));
    await owner.resume();
    expect(world.networks[1]).toMatchObject({ policies: [only('b.example')], isClosed: false });
  });

  it('of a copy is its own, with the policy of when the snapshot was taken', async () => {
    const { service, world, create } = ladder();
    const owner = await create();
    await owner.remember(() => ({ egress: only('a.example') }));
    const { clones } = await service.clone(owner, 2, null, {});
    await owner.remember(() => ({ egress: null }));
    const ofClones = world.networks.filter(({ sandboxId }) => sandboxId !== owner.record.id);
    expect(ofClones.map(({ sandboxId }) => sandboxId).sort()).toEqual(clones.map(({ record }) => record.id).sort());
    for (const { policies } of ofClones) expect(policies).toEqual([only('a.example')]);
  });

  it('is given again to what outlived a daemon, and is closed with one that dies', async () => {
    const before = ladder();
    const owner = await before.create();
    await owner.remember(() => ({ egress: only('a.example') }));
    expect(await before.service.close('keep')).toBe(1);
    expect(before.world.networks[0]?.isClosed).toBe(true);
    const after = ladder({}, before.world);
    await after.service.recover(1_000);
    expect(after.world.networks[1]).toMatchObject({ policies: [only('a.example')], isClosed: false });
    const again = await after.service.get(ACCOUNT, owner.record.id);
    after.vms[0]?.die();
    await expect.poll(() => again.record.state).toBe('failed');
    expect(after.world.networks[1]?.isClosed).toBe(true);
  });
});

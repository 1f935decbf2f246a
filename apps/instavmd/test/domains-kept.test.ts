/** Custom domains after a daemon that stopped, and as the preview proxy sees them. */
import { type ShareId, systemClock } from '@instavm/core';
import { ApiKeys, domainRecords } from '@instavm/store';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { type PreviewParts, previewTargets } from '../src/previews.ts';
import { DomainStage, NAME, TXT } from './domain-stage.ts';

let stage: DomainStage;
beforeEach(async () => {
  stage = await DomainStage.open();
});
afterEach(() => stage.close());

/** Its daemon stopped before the authority answered. */
async function verifiedAndStopped() {
  const call = await stage.serve();
  const made = await stage.create(call);
  stage.publish(made);
  stage.world.authority.shut();
  await call('POST', `/${made.id}/verify`);
  await stage.domains.close();
  return { call, made };
}

describe('custom domains and daemons that stop', () => {
  it('are taken up again where they were verified and not issued', async () => {
    const { call, made } = await verifiedAndStopped();
    expect((await call('GET', `/${made.id}`)).body).toMatchObject({ status: 'verified', last_error: null });
    expect((await call('POST', `/${made.id}/verify`)).body.code).toBe('shutting_down');
    stage.world.authority.open();
    await stage.startAgain();
    expect((await stage.settled(await stage.serve(), made.id)).status).toBe('issued');
    expect(stage.world.events).toEqual([`look up ${TXT}`, `order ${NAME}`, `order ${NAME}`]);
  });

  it('are issued without another order when the certificate came before the end', async () => {
    const { made } = await verifiedAndStopped();
    stage.world.certificates.add(NAME);
    await stage.startAgain();
    expect((await stage.settled(await stage.serve(), made.id)).status).toBe('issued');
    expect(stage.world.events.filter((event) => event.startsWith('order'))).toHaveLength(1);
  });

  it('may be verified afresh when the end came during the look-up', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    stage.publish(made);
    stage.world.dns.shut();
    const asked = call('POST', `/${made.id}/verify`);
    await expect.poll(() => stage.world.events).toHaveLength(1);
    await stage.domains.close();
    expect((await asked).body.status).toBe('pending');
    stage.world.dns.open();
    await stage.startAgain();
    const again = await stage.serve();
    await again('POST', `/${made.id}/verify`);
    expect((await stage.settled(again, made.id)).status).toBe('issued');
  });

  it('fail by name when DNS or the certificate authority never answers', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    stage.publish(made);
    const hurried = {
      now: () => new Date(),
      schedule: (_: Date, task: () => void) => systemClock.schedule(new Date(), task),
    };
    stage.world.clock = hurried;
    stage.world.dns.shut();
    await call('POST', `/${made.id}/verify`);
    expect((await stage.settled(call, made.id)).last_error).toContain('no answer within 15 seconds');
    stage.world.clock = systemClock;
    stage.world.dns.open();
    stage.world.authority.shut();
    expect((await call('POST', `/${made.id}/verify`)).body.status).toBe('verified');
    await stage.domains.close();
    stage.world.clock = hurried;
    await stage.startAgain();
    expect(await stage.settled(await stage.serve(), made.id)).toMatchObject({
      ...{ last_error_code: 'certificate_failed', last_error: expect.stringContaining('did not come in 10 minutes') },
    });
  });
});

describe('custom domains as the preview proxy sees them', () => {
  const targets = () => {
    const { shares, database } = stage.world;
    const sandboxes = {} as PreviewParts['sandboxes'];
    return previewTargets({
      sampler: { count: () => {} },
      keyConnections: { hold: () => () => {} },
      shares,
      sandboxes,
      keys: new ApiKeys(database),
      domains: domainRecords(database),
    });
  };

  it('stand for their share once they are proven, as it is then', async () => {
    const call = await stage.serve();
    const made = await stage.create(call);
    const { findDomain } = targets();
    expect(await findDomain(NAME)).toBeUndefined();
    stage.publish(made);
    await call('POST', `/${made.id}/verify`);
    await stage.settled(call, made.id);
    expect(await findDomain(NAME)).toMatchObject({ shareId: stage.share.id, port: 8000, isPublic: false });
    await stage.world.shares.change(stage.owner.id, stage.share.id as ShareId, { isPublic: true });
    expect((await findDomain(NAME))?.isPublic).toBe(true);
    for (const other of [`x.${NAME}`, 'example.com', NAME.toUpperCase(), ''])
      expect(await findDomain(other)).toBeUndefined();
    await stage.world.shares.revoke(stage.owner.id, stage.share.id);
    await expect(findDomain(NAME)).rejects.toMatchObject({ code: 'share_not_found' });
    // The record stays, to be deleted.
    expect((await call('GET', `/${made.id}`)).body.status).toBe('issued');
    expect((await call('DELETE', `/${made.id}`)).status).toBe(200);
  });
});

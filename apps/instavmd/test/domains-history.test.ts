/** Random histories of one domain that two accounts want: against a small model, and all at once against what must always hold. */
import type { DomainRecord, DomainStatus, Domains, ShareRecord } from '@instavm/core';
import { challengeOf, type DomainName } from '@instavm/core';
import { domainRecords } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { DomainWorld } from './domain-world.ts';

const NAME = 'app.example.com' as DomainName;
const ACTIONS = ['create', 'publish', 'withdraw', 'verify', 'delete', 'crash in look-up', 'crash in order'] as const;
type Step = { who: 0 | 1; what: (typeof ACTIONS)[number]; authority: 'issues' | 'refuses' };
const steps = fc.array(
  fc.record({
    who: fc.constantFrom(0 as const, 1 as const),
    what: fc.constantFrom(...ACTIONS, 'verify' as const),
    authority: fc.constantFrom('issues' as const, 'issues' as const, 'refuses' as const),
  }),
  { maxLength: 20 },
);

/** What an account has of the domain. */
type Model = { status: DomainStatus | 'none'; published: boolean }[];
const isHeld = ({ status }: Model[number]): boolean => status === 'verified' || status === 'issued';

/** @returns whether it is refused */
function act(model: Model, { who, what, authority }: Step): boolean {
  const [mine, other] = [model[who], model[1 - who]] as [Model[number], Model[number]];
  const issue = (): void => {
    mine.status = authority === 'issues' ? 'issued' : 'failed';
  };
  switch (what) {
    case 'create':
      if (isHeld(other)) return true;
      if (mine.status === 'none') Object.assign(mine, { status: 'pending', published: false });
      return false;
    case 'publish':
    case 'withdraw':
      mine.published = what === 'publish' && mine.status !== 'none';
      return false;
    case 'delete':
      if (mine.status === 'none') return true;
      mine.status = 'none';
      return false;
  }
  // The others verify.
  if (mine.status === 'none') return true;
  if (mine.status === 'issued') return false;
  if (what === 'crash in look-up') mine.status = 'pending';
  else if (!mine.published || isHeld(other)) mine.status = 'failed';
  else issue();
  return false;
}

describe('a custom domain that two accounts want', () => {
  let world: DomainWorld;
  let domains: Domains;
  let owners: { share: ShareRecord; value: string; id: number; published: boolean }[];
  beforeEach(async () => {
    world = await DomainWorld.open();
    owners = [];
    for (const email of ['a@b', 'c@d']) {
      const { id } = await world.account(email);
      owners.push({ share: await world.share(id), value: '', id: 0, published: false });
    }
    await afresh();
  });
  afterEach(async () => {
    await domains.close();
    await world.database.destroy();
  });

  const ownerOf = (who: number) => owners[who] as (typeof owners)[number];
  async function afresh(): Promise<void> {
    await domains?.close();
    world.dns.open();
    world.authority.open();
    await world.database.deleteFrom('custom_domains').execute();
    world.certificates.clear();
    world.events.length = 0;
    for (const owner of owners) owner.published = false;
    domains = world.start();
  }
  const records = async (): Promise<DomainRecord[]> =>
    (await Promise.all(owners.map(({ share }) => domainRecords(world.database).list(share.accountId, 9)))).flat();
  /** Nothing is under way. */
  const quiet = () =>
    vi.waitFor(async () => {
      await new Promise(setImmediate);
      for (const { status } of await records()) if (status === 'verified') throw new Error('not yet');
    }, 60_000);

  async function perform({ who, what, authority }: Step): Promise<void> {
    const owner = ownerOf(who);
    const { share } = owner;
    world.refusal = authority === 'issues' ? undefined : new InstaVMError('certificate_failed', 'refused');
    const publish = (published: boolean): void => {
      owner.published = published;
      world.txt.set(
        challengeOf(NAME),
        owners.filter((each) => each.published).map(({ value }) => value),
      );
    };
    const crashBehind = async (gate: DomainWorld['dns']): Promise<void> => {
      await domains.get(share.accountId, owner.id);
      gate.shut();
      const verifying = domains.verify(share.accountId, owner.id);
      // Nobody comes there when it is issued already, or the proof is not there.
      await Promise.race([verifying, gate.arrived]);
      await domains.close();
      await verifying;
      gate.open();
      domains = world.start();
      await domains.resume();
      await quiet();
    };
    switch (what) {
      case 'create': {
        const wanted = { domain: NAME, shareId: share.id, dnsProvider: '' };
        const { id, verificationToken: value } = await domains.create(share.accountId, wanted);
        if (id !== owner.id) publish(false);
        Object.assign(owner, { id, value });
        return;
      }
      case 'publish':
        return publish(true);
      case 'withdraw':
        return publish(false);
      case 'verify':
        await domains.verify(share.accountId, owner.id);
        return quiet();
      case 'delete':
        return domains.delete(share.accountId, owner.id);
      case 'crash in look-up':
        return crashBehind(world.dns);
      case 'crash in order':
        return crashBehind(world.authority);
    }
  }

  async function alwaysHolds(): Promise<void> {
    const all = await records();
    const held = all.filter(({ status }) => status === 'verified' || status === 'issued');
    expect(held.length).toBeLessThanOrEqual(1);
    const issued = all.filter(({ status }) => status === 'issued');
    expect(world.certificates.size, 'a certificate, and nobody who has it').toBe(issued.length);
    for (const { status, failure, issuedAt } of all) {
      expect(failure !== null).toBe(status === 'failed');
      expect(issuedAt !== null).toBe(status === 'issued');
    }
    expect((await domainRecords(world.database).findHeld(NAME))?.id).toBe(held[0]?.id);
  }

  it('is what the model says after every step', async () => {
    const both = ([0, 1] as const).flatMap((who) =>
      (['create', 'publish'] as const).map((what) => ({ who, what, authority: 'issues' as const })),
    );
    const histories = fc.tuple(fc.constantFrom(both, []), steps).map((parts) => parts.flat());
    const property = fc.asyncProperty(histories, async (history) => {
      await afresh();
      const model: Model = owners.map(() => ({ status: 'none', published: false }));
      for (const step of history) {
        const outcome = await perform(step).then(
          () => 'done',
          (error) => {
            expect(error).toBeInstanceOf(InstaVMError);
            return 'refused';
          },
        );
        expect(outcome, JSON.stringify(step)).toBe(act(model, step) ? 'refused' : 'done');
        const all = await records();
        const statuses = owners.map(
          ({ share }) => all.find(({ accountId }) => accountId === share.accountId)?.status ?? 'none',
        );
        expect(statuses, JSON.stringify(step)).toEqual(model.map(({ status }) => status));
        await alwaysHolds();
      }
    });
    await fc.assert(property, { numRuns: 60 });
  });

  it('has one owner and no stray certificate whatever is asked at once', async () => {
    const atOnce = steps.map((all) => all.filter(({ what }) => !what.startsWith('crash')));
    const property = fc.asyncProperty(atOnce, async (history) => {
      await afresh();
      for (const who of [0, 1] as const)
        for (const what of ['create', 'publish'] as const) await perform({ who, what, authority: 'issues' });
      const outcomes = await Promise.allSettled(history.map(perform));
      for (const outcome of outcomes) {
        if (outcome.status === 'rejected') expect(outcome.reason).toBeInstanceOf(InstaVMError);
      }
      await quiet();
      await domains.close();
      await alwaysHolds();
    });
    await fc.assert(property, { numRuns: 60 });
  });
});

/** The parts of the audit trail that no request shows by itself: who acts, what guests are denied, and who waits for news. */
import { type AccountId, newAccountId, newIncarnationId, newSandboxId, SYSTEM, systemClock } from '@instavm/core';
import { Accounts, type Database, egressLog, openDatabase, sandboxRecords } from '@instavm/store';
import { egressEntry } from '@instavm/testing';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { actingFor, nobodysTimers, presentActor, recognize, stranger, visitorOf } from '../src/acting.ts';
import { type Audit, News } from '../src/audit.ts';
import { auditOf } from './audit-of.ts';
import { recordOf } from './sandbox-record.ts';

describe('who acts', () => {
  const account = { id: newAccountId(), email: 'a@b' } as Parameters<typeof recognize>[0]['account'];

  it('is nobody at first, then the caller, through everything that is awaited, and never another request', async () => {
    expect(presentActor()).toEqual(SYSTEM);
    const seen = await Promise.all(
      ['one', 'other'].map((name, index) =>
        actingFor(stranger(name, '203.0.113.1'), async () => {
          const before = presentActor();
          await new Promise(setImmediate);
          recognize({ account, keyId: index, keyPrefix: `sk_${name}` });
          await new Promise((resolve) => setTimeout(resolve, 2 - index));
          return [before.type, presentActor()];
        }),
      ),
    );
    const common = { type: 'api_key', accountId: account.id, address: '203.0.113.1' };
    expect(seen).toEqual([
      ['anonymous', { ...common, id: '0', name: 'sk_one', requestId: 'one' }],
      ['anonymous', { ...common, id: '1', name: 'sk_other', requestId: 'other' }],
    ]);
    expect(presentActor()).toEqual(SYSTEM);
  });

  it('is nobody where a timer does something, whoever set it', async () => {
    const clock = nobodysTimers(systemClock);
    const seen = await actingFor(visitorOf('shrx' as never), () => {
      return new Promise((resolve) => clock.schedule(new Date(), () => resolve(presentActor())));
    });
    expect(seen).toEqual(SYSTEM);
  });
});

it('who is refused while the daemon stops is written down', async () => {
  const database = await openDatabase(':memory:');
  const administrator = { isAdministrator: true };
  const { id } = await new Accounts(database).createWithKey('a@b', 'A', 'first', () => {}, administrator);
  const audit = auditOf(database);
  audit.keyRefused('instavm_sk_of_nobody', '203.0.113.1');
  audit.signInFailed(undefined, {});
  await audit.stop();
  const told = await audit.trail.list(id, {}, { limit: 10 });
  const refusals = told.filter(({ status }) => status === 'denied').map(({ type }) => type);
  expect(refusals.sort()).toEqual(['auth.sign_in_failed', 'key.refused']);
  await database.destroy();
});

describe('what a sandbox is denied', () => {
  let database: Database;
  let audit: Audit;
  let accountId: AccountId;
  beforeEach(async () => {
    database = await openDatabase(':memory:');
    accountId = (await new Accounts(database).createWithKey('a@b', 'A', 'first', () => {})).id;
    audit = auditOf(database);
  });
  afterEach(() => database.destroy());

  it('is told as of the sandbox, once for each destination, with how often in the end', async () => {
    const id = newSandboxId();
    await sandboxRecords(database).insert(recordOf({ id, accountId, incarnationId: newIncarnationId() }));
    const log = audit.watching(egressLog(database));
    const denied = { allowed: false, outcome: 'denied', rule: 'default_deny', reason: 'no rule allows it' } as const;
    await log.append(id, [egressEntry(), egressEntry({ ...denied, repeated: 3 }), egressEntry({ outcome: 'failed' })]);
    await log.append(id, [egressEntry(denied), egressEntry({ ...denied, host: 'other.test' })]);
    // One that is gone is nobody's.
    await log.append(newSandboxId(), [egressEntry(denied)]);
    await audit.stop();
    const told = await audit.trail.list(accountId, { group: 'egress' }, { limit: 10 });
    expect(told.reverse().map(({ details }) => [details.host, details.repeated])).toEqual([
      ['example.com', undefined],
      ['other.test', undefined],
      ['example.com', 3],
    ]);
    expect(told[0]).toMatchObject({
      ...{ status: 'denied', sandboxId: id, error: 'no rule allows it' },
      actor: { type: 'sandbox', id },
      details: { port: 443, rule: 'default_deny' },
    });
    expect((await log.list(id, { limit: 10 })).entries).toHaveLength(5);
  });
});

describe('news', () => {
  const [mine, other] = [newAccountId(), newAccountId()];

  it('wakes those who wait for the account, and loses nothing that is told before they wait', async () => {
    const news = new News();
    const stop = new AbortController();
    const next = news.follow(mine, stop.signal);
    news.tell(mine);
    expect(await next()).toBe(true);
    const waiting = next();
    news.tell(other);
    expect(await Promise.race([waiting, Promise.resolve('waits')])).toBe('waits');
    news.tell(mine);
    expect(await waiting).toBe(true);
    const last = next();
    stop.abort();
    expect([await last, await next()]).toEqual([false, false]);
  });

  it('end with the daemon', async () => {
    const news = new News();
    const waiting = news.follow(mine, new AbortController().signal)();
    news.end();
    expect(await waiting).toBe(false);
  });
});

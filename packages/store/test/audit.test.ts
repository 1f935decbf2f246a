/** The audit trail in a real database: read in pages against a model, forgotten in order, and kept with what it tells or not at all. */
import { type AccountId, newSandboxId, type SandboxId, type StoredAuditEvent, SYSTEM } from '@instavm/core';
import type { AuditType } from '@instavm/wire';
import fc from 'fast-check';
import { sql } from 'kysely';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Accounts, ApiKeys, AuditWriter, auditTrail, type Database, openDatabase, shareRecords } from '../src/index.ts';

let database: Database;
let accounts: AccountId[];
let writer: AuditWriter;
const told: AccountId[] = [];
const sandboxes = [newSandboxId(), newSandboxId()];
const TYPES = ['sandbox.created', 'sandbox.started', 'key.created', 'egress.denied'] as const satisfies AuditType[];

beforeEach(async () => {
  database = await openDatabase(':memory:');
  writer = new AuditWriter(undefined, (accountId) => told.push(accountId));
  const made = ['a@b', 'c@d'].map((email) => new Accounts(database).createWithKey(email, email, 'first', () => {}));
  accounts = (await Promise.all(made)).map(({ id }) => id);
  await sql`delete from audit_events`.execute(database);
});
afterEach(() => database.destroy());

const event = fc.record({
  account: fc.nat(1),
  type: fc.constantFrom(...TYPES),
  status: fc.constantFrom('success' as const, 'denied' as const),
  sandbox: fc.option(fc.nat(1), { nil: undefined }),
});
type Made = typeof event extends fc.Arbitrary<infer T> ? T : never;

const append = (events: readonly Made[]) =>
  auditTrail(database, writer).append(
    events.map(({ account, type, status, sandbox }) => ({
      ...{ accountId: accounts[account] as AccountId, type, status },
      ...(sandbox !== undefined && { sandboxId: sandboxes[sandbox] as SandboxId }),
    })),
  );

const filter = fc.record(
  {
    group: fc.constantFrom('sandbox', 'key', 'sand', 'nothing'),
    type: fc.constantFrom(...TYPES),
    status: fc.constantFrom('success' as const, 'denied' as const),
    sandboxId: fc.constantFrom(...sandboxes),
  },
  { requiredKeys: [] },
);
type Wanted = typeof filter extends fc.Arbitrary<infer T> ? T : never;

const matches = (wanted: Wanted, { type, status, sandbox }: Made): boolean =>
  (wanted.group === undefined || type.startsWith(`${wanted.group}.`)) &&
  (wanted.type === undefined || type === wanted.type) &&
  (wanted.status === undefined || status === wanted.status) &&
  (wanted.sandboxId === undefined || (sandbox !== undefined && sandboxes[sandbox] === wanted.sandboxId));

describe('the audit trail', () => {
  it('is read in pages that miss nothing and repeat nothing, whatever is asked for and written meanwhile', async () => {
    const trail = auditTrail(database, writer);
    await fc.assert(
      fc
        .asyncProperty(
          fc.array(event, { maxLength: 30 }),
          filter,
          fc.integer({ min: 1, max: 7 }),
          fc.array(event, { maxLength: 3 }),
          async (events, wanted, limit, late) => {
            await append(events);
            for (const [account, accountId] of accounts.entries()) {
              // Numbered as they were written, each account for itself.
              const own = events
                .filter((each) => each.account === account)
                .map((each, index) => ({ each, id: index + 1 }));
              const expected = own.filter(({ each }) => matches(wanted, each)).map(({ id }) => id);
              const newest = await trail.newestId(accountId);
              expect(newest).toBe(own.length);
              const backwards: number[] = [];
              let page: StoredAuditEvent[];
              let beforeId: number | undefined = newest + 1;
              do {
                page = await trail.list(accountId, wanted, { limit, beforeId });
                backwards.push(...page.map(({ id }) => id));
                beforeId = backwards.at(-1);
                await append(late.filter((each) => each.account === account));
              } while (page.length === limit);
              expect(backwards).toEqual(expected.toReversed());
              const onwards: number[] = [];
              do {
                page = await trail.list(accountId, wanted, { limit, afterId: onwards.at(-1) ?? 0 });
                onwards.push(...page.map(({ id }) => id));
              } while (page.length === limit);
              expect(onwards.filter((id) => id <= newest)).toEqual(expected);
            }
          },
        )
        .afterEach(() => sql`delete from audit_events`.execute(database)),
      { numRuns: 60 },
    );
  });

  it('forgets the oldest first, what guests cause earlier than the rest, and never the newest', async () => {
    const trail = auditTrail(database, writer);
    const [accountId, other] = accounts as [AccountId, AccountId];
    const written = async (type: AuditType, count: number, at = new Date()): Promise<void> =>
      trail.append(Array.from({ length: count }, () => ({ accountId, type, status: 'success' as const, at })));
    const kept = async () => (await trail.list(accountId, {}, { limit: 200 })).map(({ id, type }) => [id, type]);
    const longAgo = new Date('2020-01-01');
    await written('sandbox.created', 5, longAgo);
    await written('sandbox.created', 10);
    await written('egress.denied', 30);
    await written('sandbox.ended', 3);
    await trail.append([{ accountId: other, type: 'key.created', status: 'success', at: longAgo }]);
    // Too old: five. Beyond a tenth of a hundred that guests may cause: twenty.
    expect(await trail.prune(new Date('2021-01-01'), 100)).toBe(25);
    const after = await kept();
    expect(after.filter(([, type]) => type === 'egress.denied').map(([id]) => id)).toEqual([
      45, 44, 43, 42, 41, 40, 39, 38, 37, 36,
    ]);
    expect(after.filter(([, type]) => type !== 'egress.denied')).toHaveLength(13);
    expect(await trail.prune(new Date('2021-01-01'), 4)).toBe(19);
    expect(await kept()).toEqual([
      [48, 'sandbox.ended'],
      [47, 'sandbox.ended'],
      [46, 'sandbox.ended'],
      [45, 'egress.denied'],
    ]);
    // All of it is too old; the next is numbered after the newest.
    await trail.prune(new Date('2100-01-01'), 100);
    expect(await kept()).toEqual([[48, 'sandbox.ended']]);
    expect(await trail.newestId(other)).toBe(1);
  });

  it('is kept with what it tells, or neither is', async () => {
    const [accountId] = accounts as [AccountId];
    await sql`create trigger full before insert on audit_events begin select raise(abort, 'no room'); end`.execute(
      database,
    );
    const keys = new ApiKeys(database, writer);
    await expect(keys.create(accountId, { name: 'k' })).rejects.toThrow('no room');
    const [first] = await keys.list(accountId);
    await expect(keys.revoke(accountId, first?.id ?? 0)).rejects.toThrow('no room');
    expect((await keys.list(accountId)).map(({ name }) => name)).toEqual(['first']);
  });

  it('tells nothing of what did not happen', async () => {
    const [accountId] = accounts as [AccountId];
    const trail = auditTrail(database, writer);
    told.length = 0;
    const keys = new ApiKeys(database, writer);
    await keys.revoke(accountId, 4711);
    await keys.rotate(accountId, 4711, 0);
    await shareRecords(database, writer).update('shrnone' as never, { isPublic: true });
    expect([await trail.newestId(accountId), told]).toEqual([0, []]);
    await keys.create(accountId, { name: 'k' });
    expect([await trail.newestId(accountId), told]).toEqual([1, [accountId]]);
  });

  it('bounds what it is given', async () => {
    const [accountId] = accounts as [AccountId];
    const trail = auditTrail(database, writer);
    const long = 'x'.repeat(100_000);
    const actor = { ...SYSTEM, name: long };
    const many = Object.fromEntries(Array.from({ length: 100 }, (_, index) => [`field ${index}`, long]));
    const common = { accountId, type: 'sandbox.failed', status: 'error', actor, error: long } as const;
    await trail.append([
      { ...common, details: { reason: long } },
      { ...common, details: many },
    ]);
    expect(JSON.stringify(await trail.list(accountId, {}, { limit: 2 })).length).toBeLessThan(8_000);
  });
});

/** What a list may show of a restricted caller's account is decided in SQL, and must be what plain code says of each record. */
import { type AccountId, DEFAULT_LIFECYCLE, type Entries, newSandboxId, type SandboxRecord } from '@instavm/core';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { Accounts, type Database, openDatabase, sandboxRecords } from '../src/index.ts';

let database: Database;
let accountId: AccountId;
beforeAll(async () => {
  database = await openDatabase(':memory:');
  accountId = (await new Accounts(database).createWithKey('a@b', 'A', 'first', () => {})).id;
});
afterAll(() => database.destroy());

const record = (metadata: Record<string, unknown>, createdAt = new Date(0)): SandboxRecord => ({
  ...{ id: newSandboxId(), accountId, state: 'running', stateReason: null, endCause: null, incarnationId: null },
  ...{ epoch: 1, size: { memoryMib: 512, vcpus: 2 }, ttlSeconds: 300, createdAt, expiresAt: null, startedAt: null },
  ...{ endedAt: null, metadata, env: {}, egress: null, lifecycle: DEFAULT_LIFECYCLE, savedIn: null, savedBytes: null },
  ...{ leaseLeftMs: null, snapshotId: null },
});

const saysPlainCode = (metadata: Entries, wanted: Entries): boolean =>
  Object.entries(wanted).every(
    ([name, value]) => Object.hasOwn(metadata, name) && JSON.stringify(metadata[name]) === JSON.stringify(value),
  );

/** Few names and values, so that many are the same, almost the same, or the same with another type. */
const name = fc.constantFrom(
  'a',
  'a',
  'a',
  'b',
  'aa',
  'a"b',
  "a'b",
  '$.a',
  'a.b',
  '[0]',
  '',
  '__proto__',
  'ä',
  '\\',
  '\0',
  '%',
);
const value = fc.oneof(
  fc.constantFrom<unknown>(
    1,
    12,
    '1',
    1.5,
    true,
    'true',
    false,
    0,
    null,
    'null',
    '',
    'x',
    '\0',
    '"a":1',
    '%',
    '\ud800',
  ),
  fc.constantFrom<unknown>(
    {},
    [],
    '{}',
    '[]',
    { a: 1 },
    { a: true },
    { a: '1' },
    '{"a":1}',
    { a: true },
    [1, 2],
    { a: { a: 1 } },
    1e21,
    2 ** 53,
    -0,
    1e-7,
  ),
);
const entries = (maxKeys: number) =>
  fc.array(fc.tuple(name, value), { maxLength: maxKeys }).map((pairs) => {
    // As `JSON.parse` makes it: `__proto__` is a name like any other.
    const members = pairs.map(([key, member]) => `${JSON.stringify(key)}:${JSON.stringify(member)}`);
    return JSON.parse(`{${members.join(',')}}`) as Record<string, unknown>;
  });

it('finds what plain code finds', async () => {
  const records = sandboxRecords(database);
  await fc.assert(
    fc.asyncProperty(
      fc.array(entries(4), { minLength: 1, maxLength: 8 }),
      entries(2),
      entries(1),
      async (all, a, b) => {
        await database.deleteFrom('sandboxes').execute();
        const made = all.map((metadata) => record(metadata));
        for (const each of made) await records.insert(each);
        const found = await records.list(accountId, { limit: 100, metadata: [a, b] });
        const wanted = made.filter(({ metadata }) => saysPlainCode(metadata, a) && saysPlainCode(metadata, b));
        expect(new Set(found.map(({ id }) => id))).toEqual(new Set(wanted.map(({ id }) => id)));
      },
    ),
    { numRuns: 300, examples: [[[{ a: 1, b: { a: true } }], { a: true }, {}]] },
  );
});

it('gives every record once, page by page, newest first, also those of one instant', async () => {
  const records = sandboxRecords(database);
  await database.deleteFrom('sandboxes').execute();
  for (let count = 0; count < 25; count++) {
    await records.insert(record({ odd: count % 2 === 1 }, new Date(Math.floor(count / 4))));
  }
  for (const metadata of [[], [{ odd: true }]]) {
    const all = await records.list(accountId, { limit: 100, metadata });
    const paged: SandboxRecord[] = [];
    for (;;) {
      const page = await records.list(accountId, { limit: 3, metadata, before: paged.at(-1) });
      if (page.length === 0) break;
      paged.push(...page);
    }
    expect(paged).toEqual(all);
    expect(all).toHaveLength(metadata.length === 0 ? 25 : 12);
    expect(all.map(({ createdAt }) => createdAt.getTime())).toEqual(
      all.map(({ createdAt }) => createdAt.getTime()).sort((a, b) => b - a),
    );
  }
});

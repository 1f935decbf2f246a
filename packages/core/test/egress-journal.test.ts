/** What becomes of what guests do, between the gateway and the log. */
import { egressRecord } from '@instavm/testing';
import { beforeEach, describe, expect, it } from 'vitest';
import { type EgressEntry, EgressJournal, type EgressLog, type EgressRecord, newSandboxId } from '../src/index.ts';
import { ManualClock } from './fakes.ts';

const denial = (fields: Partial<EgressRecord> = {}): EgressRecord =>
  egressRecord({
    allowed: false,
    rule: 'default_deny',
    outcome: 'denied',
    reason: 'no',
    address: null,
    ...NONE,
    ...fields,
  });
const NONE = { bytesSent: 0, bytesReceived: 0, durationMs: null };

describe('the egress journal', () => {
  const id = newSandboxId();
  let clock: ManualClock;
  let written: (readonly EgressEntry[])[];
  let warnings: object[];
  let failing: boolean;
  let journal: EgressJournal;
  beforeEach(() => {
    [clock, written, warnings, failing] = [new ManualClock(), [], [], false];
    const log: EgressLog = {
      append: async (_id, entries) => {
        if (failing) throw new Error('no room');
        written.push(entries);
      },
      list: async () => ({ entries: [], oldestId: 0, newestId: 0 }),
    };
    journal = new EgressJournal(log, clock, { warn: (fields) => warnings.push(fields) });
  });

  it('writes what happened in a quarter of a second at once', async () => {
    journal.record(id, egressRecord());
    journal.record(id, egressRecord({ host: 'other' }));
    clock.advance(249);
    expect(written).toEqual([]);
    clock.advance(1);
    await journal.flush();
    expect(written.map((rows) => rows.map(({ host }) => host))).toEqual([['example.com', 'other']]);
    expect(clock.scheduled).toBe(0);
  });

  it('makes one row of attempts that were alike and came to nothing, and none of a connection that began', async () => {
    for (let time = 0; time < 1_000; time++) journal.record(id, denial());
    journal.record(id, denial({ port: 80 }));
    journal.record(id, egressRecord({ outcome: 'open' }));
    for (let time = 0; time < 2; time++) journal.record(id, egressRecord());
    await journal.flush();
    const rows = written[0]?.map(({ port, outcome, repeated }) => [port, outcome, repeated]);
    expect(rows).toEqual([
      [443, 'denied', 1_000],
      [80, 'denied', 1],
      [443, 'closed', 1],
      [443, 'closed', 1],
    ]);
  });

  it('counts every attempt of a flood, in a bounded number of rows of bounded length', async () => {
    for (let time = 0; time < 5_000; time++) journal.record(id, denial({ host: `${time}.${'x'.repeat(2_000)}` }));
    for (let time = 0; time < 5_000; time++) journal.record(id, egressRecord({ host: `${time}` }));
    await journal.flush();
    const rows = written[0] ?? [];
    expect(rows.length).toBeLessThan(300);
    expect(rows.reduce((sum, { repeated }) => sum + repeated, 0)).toBe(10_000);
    expect(Math.max(...rows.map(({ host }) => host.length))).toBe(255);
    expect(rows.slice(-2)).toMatchObject([
      { rule: 'not_listed', allowed: false },
      { rule: 'not_listed', allowed: true, repeated: 5_000, bytesSent: 5_000, bytesReceived: 10_000 },
    ]);
  });

  it('bounds what all sandboxes together have written at once', async () => {
    const ids = Array.from({ length: 50 }, () => newSandboxId());
    for (const one of ids) for (let time = 0; time < 100; time++) journal.record(one, egressRecord());
    await journal.flush();
    expect(written.flat().length).toBeLessThan(2_048 + 2 * ids.length);
    expect(written.flat().reduce((sum, { repeated }) => sum + repeated, 0)).toBe(5_000);
  });

  it('does not fail with the log, and counts what could not be written in the next row that can', async () => {
    failing = true;
    journal.record(id, egressRecord());
    journal.record(id, denial());
    await journal.flush();
    expect(warnings).toHaveLength(1);
    failing = false;
    journal.record(id, egressRecord({ host: 'next' }));
    await journal.flush();
    expect(written.flat().map(({ rule, allowed, repeated }) => [rule, allowed, repeated])).toEqual([
      ['allow_https', true, 1],
      ['not_listed', true, 1],
      ['not_listed', false, 1],
    ]);
  });

  it('tells followers of what began at once, of what ended when it is written, and how much they missed', async () => {
    const follower = journal.follow(id);
    journal.record(newSandboxId(), egressRecord({ outcome: 'open' }));
    for (let time = 0; time < 1_500; time++) journal.record(id, egressRecord({ outcome: 'open' }));
    expect(await follower.news()).toBe(true);
    const { opened, missed } = follower.takeOpened();
    expect([opened.length, missed]).toEqual([1_000, 500]);
    expect(follower.takeOpened()).toEqual({ opened: [], missed: 0 });
    const next = follower.news();
    journal.record(id, egressRecord());
    await journal.flush();
    expect(await next).toBe(true);
    const last = follower.news();
    journal.record(id, egressRecord());
    await journal.stop();
    expect([await last, await follower.news()]).toEqual([false, false]);
    expect(written).toHaveLength(2);
  });
});

/** What can be caused at will, told without end by those who cause it and with one by us. */
import { describe, expect, it } from 'vitest';
import { type NewAuditEvent, Repeats } from '../src/index.ts';
import { ACCOUNT, ManualClock } from './fakes.ts';

function scene() {
  const clock = new ManualClock();
  const written: NewAuditEvent[] = [];
  const trail = { append: async (events: readonly NewAuditEvent[]) => void written.push(...events) };
  const repeats = new Repeats({ trail, clock, log: { warn: () => {} } });
  const denied = (host: string): NewAuditEvent => ({
    ...{ accountId: ACCOUNT, type: 'egress.denied', status: 'denied' },
    details: { host },
  });
  const note = (subject: string, host: string) => repeats.note(subject, host, denied(host), denied('*'));
  const told = () => written.splice(0).map(({ details }) => [details?.host, details?.repeated]);
  return { clock, repeats, note, told, settled: () => new Promise(setImmediate) };
}

describe('repeated events', () => {
  it('are told at once, and then once a minute with how often', async () => {
    const { clock, note, told, settled } = scene();
    for (let count = 0; count < 1_000; count++) note('sandbox', 'evil.test');
    await settled();
    expect(told()).toEqual([['evil.test', undefined]]);
    clock.advance(60_000);
    await settled();
    expect(told()).toEqual([['evil.test', 999]]);
    clock.advance(600_000);
    note('sandbox', 'evil.test');
    await settled();
    expect(told()).toEqual([['evil.test', undefined]]);
  });

  it('are bounded for a sandbox that never asks for the same host twice, and for no other', async () => {
    const { clock, note, told, settled } = scene();
    for (let minute = 0; minute < 3; minute++) {
      for (let count = 0; count < 5_000; count++) note('flood', `${minute}.${count}.test`);
      note('honest', 'other.test');
      await settled();
      expect(told()).toHaveLength(20 + 1 + 1);
      clock.advance(60_000);
      await settled();
      expect(told()).toEqual([['*', 5_000 - 20 - 1]]);
    }
    expect(clock.scheduled).toBe(0);
  });

  it('are not lost with the end of the daemon', async () => {
    const { repeats, note, told } = scene();
    for (let count = 0; count < 3; count++) note('sandbox', 'evil.test');
    await repeats.stop();
    expect(told()).toEqual([
      ['evil.test', undefined],
      ['evil.test', 2],
    ]);
  });
});

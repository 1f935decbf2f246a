/** Memory for output that waits to be answered, which clients of several accounts share. */
import { afterEach, describe, expect, it } from 'vitest';
import { OutputBudget } from '../src/guest/output-budget.ts';

const MIB = 1024 * 1024;
const open: OutputBudget[] = [];
afterEach(() => {
  for (const budget of open.splice(0)) budget.release();
});

function command(account: string): OutputBudget {
  const budget = new OutputBudget(account);
  open.push(budget);
  return budget;
}

describe('memory for output', () => {
  it('is bounded for a command, and for all commands of an account', () => {
    const first = command('a');
    first.take(200 * MIB);
    expect(() => first.take(57 * MIB)).toThrow('wrote more than');
    const second = command('a');
    expect(() => second.take(57 * MIB)).toThrow('too much output is waiting');
    second.take(56 * MIB);
    first.release();
    second.take(200 * MIB);
  });

  it('is there for an account though others hold all that they can, for as long as they like', () => {
    for (const account of ['a', 'b', 'c', 'd']) {
      const hog = command(account);
      try {
        for (;;) hog.take(MIB);
      } catch (error) {
        expect(error).toMatchObject({ code: expect.stringMatching(/^(output_too_large|capacity_unavailable)$/) });
      }
    }
    const modest = command('e');
    modest.take(8 * MIB);
    expect(() => modest.take(1)).toThrow('too much output is waiting');
  });

  it('is given back for good: what a command that nobody waits for still writes takes none', () => {
    for (let times = 0; times < 4; times++) {
      const abandoned = new OutputBudget('a');
      abandoned.take(100 * MIB);
      abandoned.release();
      abandoned.take(100 * MIB);
      abandoned.release();
      expect(abandoned.takenBytes).toBe(0);
    }
    command('a').take(256 * MIB);
    command('b').take(256 * MIB);
  });
});

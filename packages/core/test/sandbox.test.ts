/** The policy of states, against random histories. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decide, MEMORY_CLASSES_MIB, memoryClass, type SandboxState, TRANSITIONS } from '../src/index.ts';

const states = Object.keys(TRANSITIONS) as SandboxState[];
const causes = [null, 'request', 'expiry', 'daemon', 'loss'] as const;

describe('the policy of states', () => {
  it('has an answer for every request in every state', () => {
    for (const state of states)
      for (const endCause of causes)
        for (const request of ['start', 'wake', 'suspend', 'snapshot', 'end'] as const)
          expect(['accept', 'already_so', 'deny']).toContain(
            decide({ state, endCause, autoResume: true }, request).kind,
          );
  });

  it('lets every state end, so that nothing is stuck for ever', () => {
    const reaches = (from: SandboxState, seen = new Set<SandboxState>()): boolean => {
      if (from === 'stopped') return true;
      if (seen.has(from)) return false;
      return TRANSITIONS[from].some((next) => reaches(next, new Set([...seen, from])));
    };
    for (const state of states) expect([state, reaches(state)]).toEqual([state, true]);
  });

  it('accepts a start only from where a new incarnation may begin', () => {
    for (const state of states)
      for (const endCause of causes)
        if (decide({ state, endCause, autoResume: true }, 'start').kind === 'accept')
          expect(TRANSITIONS[state].some((next) => next === 'creating' || next === 'resuming')).toBe(true);
  });

  it('wakes whatever a start would start, except what its owner ended or keeps suspended', () => {
    for (const state of states) {
      for (const endCause of causes) {
        for (const autoResume of [true, false]) {
          const start = decide({ state, endCause, autoResume }, 'start').kind;
          const wake = decide({ state, endCause, autoResume }, 'wake').kind;
          const stays = (state === 'stopped' && endCause === 'request') || (state === 'suspended' && !autoResume);
          expect(wake).toBe(stays ? 'deny' : start);
        }
      }
    }
  });

  it('is idempotent in ending', () => {
    expect(decide({ state: 'stopped', endCause: 'request', autoResume: true }, 'end').kind).toBe('already_so');
  });
});

describe('a memory class', () => {
  it('is never less than what was asked for, and the smallest that is not', () => {
    fc.assert(
      fc.property(fc.integer({ min: 128, max: 8192 }), (asked) => {
        const given = memoryClass(asked);
        expect(given).toBeGreaterThanOrEqual(asked);
        expect(MEMORY_CLASSES_MIB.filter((size) => size >= asked && size < given)).toEqual([]);
      }),
    );
  });
});

/** The policy of states, as a table and against random histories. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  decide,
  HOLDING_STATES,
  MEMORY_CLASSES_MIB,
  memoryClass,
  planRecovery,
  type SandboxRequest,
  type SandboxState,
  TRANSITIONS,
} from '../src/index.ts';

const states = Object.keys(TRANSITIONS) as SandboxState[];
const causes = [null, 'request', 'expiry', 'daemon', 'loss'] as const;
const requests: SandboxRequest[] = ['start', 'wake', 'rouse', 'suspend', 'resume', 'snapshot', 'end'];
const facts = states.flatMap((state) =>
  causes.flatMap((endCause) => [true, false].map((autoResume) => ({ state, endCause, autoResume }))),
);

describe('the policy of states', () => {
  it('has an answer for every request in every state, and a reason for every refusal', () => {
    for (const fact of facts)
      for (const request of requests) {
        const verdict = decide(fact, request);
        expect(['accept', 'already_so', 'deny']).toContain(verdict.kind);
        if (verdict.kind === 'deny') expect(verdict.reason.length).toBeGreaterThan(10);
      }
  });

  it('lets every state end, so that nothing is stuck for ever', () => {
    const reaches = (from: SandboxState, seen = new Set<SandboxState>()): boolean => {
      if (from === 'stopped') return true;
      if (seen.has(from)) return false;
      return TRANSITIONS[from].some((next) => reaches(next, new Set([...seen, from])));
    };
    for (const state of states) expect([state, reaches(state)]).toEqual([state, true]);
    for (const fact of facts) expect([fact.state, decide(fact, 'end').kind]).not.toContain('deny');
  });

  it('accepts a request only where what it begins may follow', () => {
    const begins: Partial<Record<SandboxRequest, SandboxState[]>> = {
      start: ['creating', 'resuming'],
      wake: ['creating', 'resuming'],
      rouse: ['resuming'],
      resume: ['resuming'],
      suspend: ['suspending'],
      end: ['stopping'],
    };
    for (const fact of facts)
      for (const [request, next] of Object.entries(begins))
        if (decide(fact, request as SandboxRequest).kind === 'accept' && fact.state !== 'stopping')
          expect([fact.state, request, next.some((state) => TRANSITIONS[fact.state].includes(state))]).toEqual([
            fact.state,
            request,
            true,
          ]);
  });

  it('wakes whatever a start would start, except what its owner ended or keeps suspended', () => {
    for (const fact of facts) {
      const { state, endCause, autoResume } = fact;
      const isMeant = (state === 'stopped' && endCause === 'request') || (state === 'suspended' && !autoResume);
      expect(decide(fact, 'wake').kind).toBe(isMeant ? 'deny' : decide(fact, 'start').kind);
    }
  });

  it('never gives a fresh microVM to who only wants the old one', () => {
    for (const fact of facts)
      for (const request of ['rouse', 'resume'] as const)
        if (decide(fact, request).kind === 'accept') expect(fact.state).toBe('suspended');
  });

  it('is idempotent in ending', () => {
    expect(decide({ state: 'stopped', endCause: 'request', autoResume: true }, 'end').kind).toBe('already_so');
  });

  it('has a plan for whatever a daemon may leave, which saves what can be saved', () => {
    for (const state of HOLDING_STATES)
      for (const isAlive of [true, false])
        for (const isSaved of [true, false]) {
          const plan = planRecovery(state, isAlive, isSaved);
          if (plan === 'adopt') expect(isAlive).toBe(true);
          if (plan === 'suspended') expect(isSaved).toBe(true);
          const isLostForNothing = plan === 'lost' && (state === 'running' ? isAlive : isSaved);
          expect([state, isAlive, isSaved, isLostForNothing]).toEqual([state, isAlive, isSaved, false]);
        }
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

/** The telemetry port: told how long the steps in the life of a sandbox take. Names are few, and never hold what a person chose. */
import type { SandboxId } from './ids.ts';

/** With the prefix `sandbox.`: of its life, as its owner sees it. The others are parts of those, or of filling the warm pool. */
export const TIMED_STEPS = [
  'sandbox.create',
  'sandbox.resume',
  'sandbox.suspend',
  'sandbox.snapshot',
  'sandbox.end',
  'template.get',
  'vmm.restore',
  'guest.attach',
  'guest.personalize',
] as const;
export type TimedStep = (typeof TIMED_STEPS)[number];

export type StepFacts = {
  readonly sandboxId?: SandboxId;
  /** What a microVM is made from. */
  readonly source?: 'warm' | 'template' | 'snapshot';
};

export interface Telemetry {
  /** Runs the work, once and at once, and has its result or its error. */
  timed<T>(step: TimedStep, facts: StepFacts, work: () => Promise<T>): Promise<T>;
}

/** Tells nobody. */
export const noTelemetry: Telemetry = { timed: (_step, _facts, work) => work() };

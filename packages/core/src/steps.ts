/**
 * The steps of the lifecycle between which a daemon may die. Every operation states what it is about to do in a record before it
 * does it, so a start after a crash at any of these finishes the operation or undoes it; a test kills the daemon at each.
 */
export const STEPS = [
  'create.recorded',
  'create.restored',
  'create.personalized',
  'create.running',
  'suspend.recorded',
  'suspend.flushed',
  'suspend.saved',
  'suspend.released',
  'suspend.suspended',
  'resume.recorded',
  'resume.restored',
  'resume.personalized',
  'resume.running',
  'resume.released',
  'snapshot.recorded',
  'snapshot.flushed',
  'snapshot.saved',
  'snapshot.ready',
  'clone.saved',
  'clone.made',
  'end.recorded',
  'end.released',
  'end.stopped',
  'delete.forgotten',
  'delete.removed',
] as const;

export type Step = (typeof STEPS)[number];

/** Told of every step that was reached, before the next begins. */
export type StepObserver = (step: Step) => void;

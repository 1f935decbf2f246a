/** Time as a dependency, so that tests need not wait for it. */
export interface Clock {
  now(): Date;
  /** Runs it then, or sooner or later where the clock is set meanwhile. @returns a function that cancels */
  schedule(at: Date, task: () => void): () => void;
}

/** Node's timers run at once beyond. No lease is that long, unless the clock is set back. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => new Date(),
  schedule: (at, task) => {
    const timer = setTimeout(task, Math.min(Math.max(0, at.getTime() - Date.now()), LONGEST_TIMER_MS));
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** Time as a dependency, so that tests need not wait for it. */
export interface Clock {
  now(): Date;
  /** @returns a function that cancels */
  schedule(at: Date, task: () => void): () => void;
}

/** Node's timers overflow after 24.8 days; no lease is longer than one. */
export const systemClock: Clock = {
  now: () => new Date(),
  schedule: (at, task) => {
    const timer = setTimeout(task, Math.max(0, at.getTime() - Date.now()));
    timer.unref();
    return () => clearTimeout(timer);
  },
};

/** A bound on how long something may take, for work that cannot be cancelled. */
import type { Clock } from './clock.ts';

/**
 * @param tooLate makes the error when time runs out
 * @param abandon is given what the work yields after that, to release it
 */
export function withDeadline<T>(
  clock: Clock,
  ms: number,
  work: Promise<T>,
  tooLate: () => Error,
  abandon: (late: T) => void = () => {},
): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let isLate = false;
    const cancel = clock.schedule(new Date(clock.now().getTime() + ms), () => {
      isLate = true;
      reject(tooLate());
    });
    work.then(
      (value) => {
        cancel();
        if (isLate) abandon(value);
        else resolve(value);
      },
      (error: unknown) => {
        cancel();
        reject(error);
      },
    );
  });
}

/** What is made for a person who does not wait for it any more: nobody has seen its id, so nobody would end it. */
import { constants } from 'node:os';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** A signal ends this program when what was asked for has come and is undone; a second one at once. What cannot be undone ends with its lifetime. */
export async function unlessInterrupted<T>(making: Promise<T>, undo: (made: T) => Promise<unknown>): Promise<T> {
  let interrupted: Promise<never> | undefined;
  const onSignal = (signal: (typeof SIGNALS)[number]): void => {
    forget();
    interrupted = making
      .then(undo)
      .catch(() => {})
      .then(() => process.exit(128 + constants.signals[signal]));
  };
  const forget = (): void => {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    const made = await making;
    return (await interrupted) ?? made;
  } finally {
    await interrupted;
    forget();
  }
}

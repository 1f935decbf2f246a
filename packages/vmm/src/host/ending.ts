/** The end of a microVM, which is tried until it is the end. */

/** The kernel may hold a killed process for as long as a disk does not answer. */
const RETRY_MS = 60_000;

/**
 * @param kill may be called again after it has failed
 * @param gone called once, when it has not
 * @returns ends it; calls that come meanwhile join. What does not end is tried again later, whether anybody asks or not
 */
export function ending(kill: () => Promise<void>, gone: () => void = () => {}): () => Promise<void> {
  let running: Promise<void> | undefined;
  const end = (): Promise<void> => {
    running ??= kill().then(gone, (error: unknown) => {
      running = undefined;
      // The next start would find it, too.
      setTimeout(() => void end().catch(() => {}), RETRY_MS).unref();
      throw error;
    });
    return running;
  };
  return end;
}

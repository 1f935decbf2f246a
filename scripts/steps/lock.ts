/** An advisory lock between processes. The kernel drops it when its holder ends, however that happens. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir } from 'node:fs/promises';
import { dirname } from 'node:path';

/** Longer than this and the person should read why nothing happens. */
const QUIET_WAIT_MS = 500;

/**
 * Holds the lock while `work` runs. flock(1) holds it for as long as its standard input, a pipe from this process, is open.
 * @param onWait called once when another process holds the lock
 * @param signal ends the waiting for it; `work` has to listen itself
 */
export async function withLock<T>(
  path: string,
  onWait: () => void,
  work: () => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  signal?.throwIfAborted();
  await mkdir(dirname(path), { recursive: true });
  const holder = spawn('flock', [path, 'sh', '-c', 'echo locked; exec cat'], { stdio: ['pipe', 'pipe', 'inherit'] });
  const ended = new Promise<never>((_, reject) => {
    holder.once('error', (cause) => reject(new Error(`flock could not be started: ${cause.message}`, { cause })));
    holder.once('exit', (code) => reject(new Error(`locking ${path} failed: flock ended with ${code}`)));
  });
  // Both outcomes of the race are awaited below; a later exit of the holder is the release.
  ended.catch(() => {});
  const waiting = setTimeout(onWait, QUIET_WAIT_MS);
  const stop = (): void => void holder.kill();
  signal?.addEventListener('abort', stop);
  try {
    await Promise.race([once(holder.stdout, 'data'), ended]).catch((error: unknown) => {
      signal?.throwIfAborted();
      throw error;
    });
    clearTimeout(waiting);
    signal?.removeEventListener('abort', stop);
    return await work();
  } finally {
    clearTimeout(waiting);
    signal?.removeEventListener('abort', stop);
    holder.stdin.end();
  }
}

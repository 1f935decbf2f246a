/**
 * The network namespace that every Firecracker of this process is put into: it has a loopback interface that is down, and nothing else. There is
 * one for all of them, for making one takes longer than all else that the jailer does; they meet nobody in it but each other.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { openSync } from 'node:fs';
import { readlink } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { InstaVMError } from '@instavm/wire';

const DEADLINE_MS = 10_000;
const POLL_MS = 2;

let made: Promise<string> | undefined;

/** @returns its path, which is good for as long as this process runs. @throws boot_failed */
export function emptyNetwork(): Promise<string> {
  made ??= make().catch((error: unknown) => {
    made = undefined;
    throw error;
  });
  return made;
}

async function make(): Promise<string> {
  // Waits in it until it is told that the namespace is held.
  const child = spawn('unshare', ['--net', '--', 'cat'], { env: {}, stdio: ['pipe', 'ignore', 'pipe'] });
  const ended = once(child, 'exit');
  ended.catch(() => {});
  let said = '';
  // One for which there are no descriptors left has neither pipe.
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk;
  });
  try {
    const theirs = `/proc/${child.pid}/ns/net`;
    const own = await readlink('/proc/self/ns/net');
    for (const until = performance.now() + DEADLINE_MS; performance.now() < until; await sleep(POLL_MS)) {
      const found = await readlink(theirs).catch(() => undefined);
      if (found === undefined) break;
      if (found !== own) return `/proc/${process.pid}/fd/${openSync(theirs, 'r')}`;
    }
    throw new InstaVMError('boot_failed', 'a network namespace cannot be made', { details: { diagnostics: said } });
  } finally {
    child.stdin?.end();
    await ended.catch(() => {});
  }
}

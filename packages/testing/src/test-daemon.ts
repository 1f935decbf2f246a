/** A real daemon for a test: a process of its own, a data directory of its own, a free port. */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { assertNothingLeft } from './leftovers.ts';

const MAIN = resolve(fileURLToPath(import.meta.url), '../../../../apps/instavmd/src/main.mjs');
const FLAGS = ['--conditions=instavm-source', '--disable-warning=ExperimentalWarning'];
/** The first start may have to make a template in an emulated guest. */
const START_DEADLINE_MS = 280_000;
/** Beyond the daemon's own. */
const STOP_DEADLINE_MS = 120_000;
/** What a daemon said last may be read after its end; what it started may hold its output open for longer. */
const LAST_WORDS_MS = 10_000;
const LOG_LINES_KEPT = 2_000;
/** Beyond the descriptors that Node takes care of itself. */
const LEFT_OPEN = 40;

export type TestDaemonOptions = {
  /** `qemu` needs what `npm run setup` makes; `firecracker` a KVM host too. */
  readonly vmm: 'fake' | 'qemu' | 'firecracker';
  /** Further settings, `INSTAVM_…`. */
  readonly env?: Readonly<Record<string, string>>;
  /** Of an earlier daemon, to start another on; it then stays. */
  readonly dataDirectory?: string;
  /** Where everything is slower than even emulation makes it. */
  readonly startWithinMs?: number;
  /** A file that is left open in the daemon, as a careless parent leaves them. */
  readonly leftOpen?: string;
};

export type TestDaemon = {
  readonly baseUrl: string;
  readonly apiKey: string;
  readonly dataDirectory: string;
  readonly pid: number;
  /** The last lines of its log. */
  log(): string;
  /** SIGTERM. @throws when it does not end with status 0 in time, or leaves anything behind that it was not told to keep. Idempotent */
  stop(): Promise<void>;
  /** SIGKILL: what is left is left. */
  crash(): Promise<void>;
};

/** What this process has, without any setting of a daemon's: one that is not known stops it. */
export const inheritedEnvironment = (): Record<string, string | undefined> =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('INSTAVM_')));

/** @throws with its log when it does not start */
export async function startTestDaemon(options: TestDaemonOptions): Promise<TestDaemon> {
  const dataDirectory = options.dataDirectory ?? (await mkdtemp(join(tmpdir(), 'instavm-test-')));
  // Tests that want them say so: sandboxes that stay, and microVMs that nobody asked for.
  const quiet = { INSTAVM_ON_STOP: 'end', INSTAVM_WARM_POOL: '0' };
  // Guests that are none need no room, and who else works on this host leaves as much as it pleases.
  const unbounded = options.vmm === 'fake' ? { INSTAVM_MEMORY_RESERVE_MB: '0', INSTAVM_DISK_RESERVE_MB: '0' } : {};
  const own = {
    ...quiet,
    ...unbounded,
    INSTAVM_DATA_DIR: dataDirectory,
    INSTAVM_LISTEN: '127.0.0.1:0',
    INSTAVM_PREVIEW_LISTEN: '127.0.0.1:0',
    INSTAVM_VMM: options.vmm,
  };
  const cache = process.env.INSTAVM_CACHE_DIR === undefined ? {} : { INSTAVM_CACHE_DIR: process.env.INSTAVM_CACHE_DIR };
  const leftOpen = options.leftOpen === undefined ? undefined : openSync(options.leftOpen, 'r');
  const gap = Array<'ignore'>(LEFT_OPEN - 3).fill('ignore');
  const child = spawn(process.execPath, [...FLAGS, MAIN], {
    env: { ...inheritedEnvironment(), ...cache, ...own, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe', ...(leftOpen === undefined ? [] : [...gap, leftOpen])],
  }) as ChildProcessByStdio<null, Readable, Readable>;
  if (leftOpen !== undefined) closeSync(leftOpen);
  const closed = once(child, 'close').then(() => undefined);
  const exited = once(child, 'exit') as Promise<[number | null, NodeJS.Signals | null]>;
  const lines: string[] = [];
  const url = new Promise<string>((found) => {
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream }).on('line', (line) => {
        lines.push(line);
        if (lines.length > LOG_LINES_KEPT) lines.shift();
        const match = /"msg":"listening on (http:[^"]+)"/.exec(line);
        if (match?.[1] !== undefined) found(match[1]);
      });
    }
  });
  const log = (): string => lines.join('\n');
  const late = deadline(options.startWithinMs ?? START_DEADLINE_MS);
  const baseUrl = await Promise.race([url, exited.then(() => undefined), late.promise]);
  late.cancel();
  if (baseUrl === undefined) {
    child.kill('SIGKILL');
    await exited;
    const silence = deadline(LAST_WORDS_MS);
    await Promise.race([closed, silence.promise]);
    silence.cancel();
    if (options.dataDirectory === undefined) await rm(dataDirectory, { recursive: true, force: true });
    throw new Error(`the daemon did not start:\n${log()}`);
  }

  const end = async (signal: NodeJS.Signals): Promise<void> => {
    child.kill(signal);
    const tooLong = deadline(STOP_DEADLINE_MS);
    const ended = await Promise.race([exited, tooLong.promise]);
    tooLong.cancel();
    if (ended === undefined) {
      child.kill('SIGKILL');
      await exited;
    }
    if (signal === 'SIGKILL') return;
    if (ended?.[0] !== 0) throw new Error(`the daemon did not stop cleanly:\n${log()}`);
    if (options.env?.INSTAVM_ON_STOP === 'keep') return;
    await assertNothingLeft(dataDirectory);
    if (options.dataDirectory === undefined) await rm(dataDirectory, { recursive: true, force: true });
  };
  let stopping: Promise<void> | undefined;
  return {
    baseUrl,
    apiKey: (await readFile(join(dataDirectory, 'admin.key'), 'utf8')).trim(),
    dataDirectory,
    pid: child.pid ?? 0,
    log,
    stop: () => {
      stopping ??= end('SIGTERM');
      return stopping;
    },
    crash: () => {
      stopping ??= end('SIGKILL');
      return stopping;
    },
  };
}

/** Resolves with undefined. */
function deadline(ms: number): { promise: Promise<undefined>; cancel: () => void } {
  let timer: NodeJS.Timeout | undefined;
  const promise = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), ms);
  });
  return { promise, cancel: () => clearTimeout(timer) };
}

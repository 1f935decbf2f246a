import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { buildAcmeServers, locateAcmeServers } from '../steps/acme-servers.ts';
import { TestRun } from '../steps/leftovers.ts';
import { withLock } from '../steps/lock.ts';
import { run } from '../steps/run.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-scripts-'));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

test('a lock lets one in at a time, and lets the next in after a failure', async () => {
  const path = join(directory, 'nested/lock');
  let inside = 0;
  const work = (fails: boolean) => async (): Promise<void> => {
    inside += 1;
    expect(inside).toBe(1);
    await new Promise((resolve) => setTimeout(resolve, 20));
    inside -= 1;
    if (fails) throw new Error('work failed');
  };
  const silent = (): void => {};
  const results = await Promise.allSettled([
    withLock(path, silent, work(true)),
    withLock(path, silent, work(false)),
    withLock(path, silent, work(false)),
  ]);
  expect(results.map((result) => result.status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
});

test('whoever waits for a lock can be told to stop, and holds it no longer than that', async () => {
  const path = join(directory, 'lock');
  const [isHeld, mayEnd] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const held = withLock(
    path,
    () => {},
    async () => {
      isHeld.resolve();
      await mayEnd.promise;
    },
  );
  await isHeld.promise;
  const stop = new AbortController();
  const work = vi.fn();
  const waiting = withLock(path, () => stop.abort(new Error('no longer')), work, stop.signal);
  await expect(waiting).rejects.toThrow('no longer');
  mayEnd.resolve();
  await held;
  expect(work).not.toHaveBeenCalled();
});

test.each([
  ['the directory for temporary files that it was told of', [], (own: string) => ({ env: { TMPDIR: own } })],
  ['where it works, although it has no environment', [], (own: string) => ({ env: {}, cwd: join(own, 'vm') })],
  ['what it was given, although it has no environment', ['--', 'own/vm'], () => ({ env: {} })],
] as const)('a process that outlives its run is found by %s, and others are not', async (_, args, optionsIn) => {
  const [run, other] = [new TestRun(), new TestRun()];
  const given = args.map((arg) => arg.replace('own', run.directory));
  await Promise.all([run, other].map(({ directory }) => mkdir(join(directory, 'vm'))));
  const child = spawn(process.execPath, ['-e', 'setTimeout(() => {}, 600_000)', ...given], {
    ...{ stdio: 'ignore', ...optionsIn(run.directory) },
  });
  try {
    await once(child, 'spawn');
    expect(await run.leftovers(0)).toEqual([{ pid: child.pid, command: expect.stringContaining(process.execPath) }]);
    expect(await other.leftovers(0)).toEqual([]);
  } finally {
    child.kill('SIGKILL');
  }
  expect(await run.leftovers()).toEqual([]);
  await Promise.all([run.remove(), other.remove()]);
});

test('those that a run left are ended, although one of them has ended meanwhile', async () => {
  const run = new TestRun();
  const child = spawn('/bin/sh', ['-c', 'echo runs; exec cat'], {
    stdio: ['pipe', 'pipe', 'ignore'],
    env: { TMPDIR: run.directory },
  });
  await once(child.stdout, 'data');
  const [left] = await run.leftovers(0);
  const ended = once(child, 'exit');
  child.stdin.end();
  await ended;
  expect(left?.pid).toBe(child.pid);
  run.end(left === undefined ? [] : [left]);
  await run.remove();
});

test('a failed program is shown with its last lines of either output', async () => {
  const failing = run('sh', ['-c', 'echo out; echo err >&2; exit 7']);
  await expect(failing).rejects.toThrow(/exit status 7/);
  await expect(failing).rejects.toThrow(/out/);
  await expect(failing).rejects.toThrow(/err/);
});

test('without Go the servers of the ACME tests are left out with a reason, and in CI that is a failure', async () => {
  const build = (): Promise<string> => buildAcmeServers(directory, () => {}, new AbortController().signal);
  vi.stubEnv('PATH', directory);
  vi.stubEnv('CI', '');
  try {
    expect(await build()).toMatch(/^skipped: Go is not on the PATH/);
    expect(await locateAcmeServers(directory)).toEqual({ missing: expect.stringContaining('install Go') });
    vi.stubEnv('CI', 'true');
    await expect(build()).rejects.toThrow('go could not be started');
  } finally {
    vi.unstubAllEnvs();
  }
});

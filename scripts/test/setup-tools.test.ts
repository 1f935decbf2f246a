import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { buildAcmeServers, locateAcmeServers } from '../steps/acme-servers.ts';
import { RunMark } from '../steps/leftovers.ts';
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

test('a process that outlives its run is found by the mark it inherited, and others are not', async () => {
  const mark = new RunMark();
  const child = spawn('sleep', ['600'], { env: { ...process.env, ...mark.env }, stdio: 'ignore' });
  try {
    expect(await mark.leftovers(0)).toEqual([{ pid: child.pid, command: 'sleep 600' }]);
  } finally {
    child.kill('SIGKILL');
  }
  expect(await mark.leftovers()).toEqual([]);
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

/** The daemon of the demo, which is detached from the terminal: only the demo ends it. */
import { join } from 'node:path';
import { expect, test, vi } from 'vitest';
import { startDemoDaemon } from '../demo/daemon.ts';
import { TestRun } from '../steps/leftovers.ts';

test('a start that is interrupted leaves no daemon', async () => {
  const run = new TestRun();
  vi.stubEnv('TMPDIR', run.directory);
  vi.stubEnv('INSTAVM_VMM', 'fake');
  try {
    const stop = new AbortController();
    const starting = startDemoDaemon(join(run.directory, 'data'), stop.signal);
    stop.abort(new Error('interrupted'));
    await expect(starting).rejects.toThrow('interrupted');
    expect(await run.leftovers(0)).toEqual([]);
  } finally {
    vi.unstubAllEnvs();
    for (const { pid } of await run.leftovers(0)) process.kill(pid, 'SIGKILL');
    await run.remove();
  }
});

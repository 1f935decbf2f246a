/** The machine of the nested tests as a process; what runs in it is theirs. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runMachine } from '../nested/machine.ts';

test('a machine that is not wanted any more when it starts is ended at once', async () => {
  const directory = await mkdtemp(join(tmpdir(), 'instavm-machine-'));
  try {
    // In place of QEMU under nice(1), and as lasting.
    await writeFile(join(directory, 'nice'), '#!/bin/sh\nexec sleep 60\n', { mode: 0o755 });
    const stop = new AbortController();
    const paths = { kernelPath: 'none', initramfsPath: 'none', disks: [] };
    const env = { PATH: `${directory}:${process.env.PATH}` };
    const running = runMachine({ ...paths, directory, limitMs: 50_000, env, signal: stop.signal });
    stop.abort(new Error('not wanted'));
    await expect(running).rejects.toThrow('not wanted');
  } finally {
    await rm(directory, { recursive: true });
  }
}, 20_000);

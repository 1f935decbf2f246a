/** A template that is lost and made again under its key, while snapshots rest on it. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { newIncarnationId } from '@instavm/core';
import { expect } from 'vitest';
import { makeBackend, SIZE, shell } from './backend.ts';

const FILL = 'head -c 20M /dev/urandom > /dev/shm/data; sha256sum < /dev/shm/data';
const READ = 'sha256sum < /dev/shm/data';

export async function makeTemplateAgain(): Promise<void> {
  const shared = await makeBackend();
  const { directory } = await shared.template();
  // Beside the templates of all tests, so that a link is enough to have the first building; only the second has to be booted.
  const root = await mkdtemp(join(dirname(dirname(directory)), '.made-again-'));
  const [templates, removed] = [join(root, 'templates'), join(root, 'removed')];
  const backend = await makeBackend(SIZE, templates);
  const { vmm, scratch } = backend;
  const [before, after] = [join(scratch, 'before'), join(scratch, 'after')];
  const restored = async (directory: string): Promise<string> => {
    const found = await vmm.findSnapshot(directory);
    if (found === undefined) throw new Error('the snapshot is not whole');
    const vm = await vmm.restore(found, newIncarnationId());
    return shell(vm, READ).finally(() => vm.kill());
  };
  try {
    await mkdir(templates);
    await promisify(execFile)('cp', ['-r', '--link', directory, templates]);
    const first = await backend.template();
    const sleeper = await vmm.restore(first, newIncarnationId());
    const runner = await vmm.restore(first, newIncarnationId());
    try {
      const [sum, other] = [await shell(sleeper, FILL), await shell(runner, FILL)];
      await sleeper.snapshot(before, 'end');

      await rename(first.directory, removed);
      await expect(runner.snapshot(after, 'continue')).rejects.toMatchObject({ code: 'snapshot_failed' });
      const second = await backend.template();
      expect([second.key, second.directory]).toEqual([first.key, first.directory]);
      expect(second.buildId).not.toBe(first.buildId);

      await expect(restored(before)).rejects.toMatchObject({ code: 'snapshot_incompatible' });
      await runner.snapshot(after, 'end');
      expect(await restored(after)).toBe(other);

      await rm(second.directory, { recursive: true });
      await rename(removed, first.directory);
      expect(await restored(before)).toBe(sum);
      await expect(restored(after)).rejects.toMatchObject({ code: 'snapshot_incompatible' });
    } finally {
      for (const vm of [sleeper, runner]) await vm.kill();
    }
    expect(await backend.leftovers()).toEqual([]);
  } finally {
    for (const { close } of [shared, backend]) await close();
    await rm(root, { recursive: true, force: true });
  }
}

/** A chain of daemons over the real Firecracker, each killed at another step of what it does for one sandbox. The matrix of all steps is QEMU's (apps/instavmd/test). */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import type { Step } from '@instavm/core';
import type { InstaVM, Sandbox } from 'instavm';
import { describe, expect, it } from 'vitest';
import { firecracker } from '../life/firecracker.ts';
import { useDataDirectory, within as withinDaemon } from '../life/host.ts';
import { say } from '../life/say.ts';

const own = useDataDirectory(firecracker);

/** @param next is done in a daemon that follows the one before, and may die of it */
const within = (crashAt: Step | undefined, next: (client: InstaVM) => Promise<void>): Promise<void> =>
  crashAt === undefined
    ? withinDaemon(firecracker, own, {}, next)
    : withinDaemon(firecracker, own, { INSTAVM_CRASH_AT: crashAt }, next, 'crash');
const dies = (asked: Promise<unknown>): Promise<void> => expect(asked).rejects.toThrow(/fetch failed|no answer from/);
const saved = (): Promise<string[]> => readdir(join(own.path, 'snapshots'));

let id: string;
const isKept = async (sandbox: Sandbox): Promise<void> =>
  expect(await say(sandbox, 'cat /dev/shm/memory disk')).toBe('kept\nkept');

describe('a daemon that is killed', { timeout: firecracker.startMs }, () => {
  it('while it makes a sandbox leaves one that has failed, and no microVM', async () => {
    await within('create.restored', (client) => dies(client.sandboxes.create({ ttlSeconds: 3600 })));
    expect(await firecracker.homes(own.path)).toHaveLength(1);
  });

  it('when a state is written leaves a sandbox that sleeps', () =>
    within('suspend.saved', async (client) => {
      expect((await client.sandboxes.list()).map(({ state }) => state)).toEqual(['failed']);
      expect(await firecracker.traces(own.path)).toEqual([]);
      const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
      id = sandbox.id;
      await say(sandbox, 'echo kept > /dev/shm/memory; echo kept > disk');
      await dies(sandbox.suspend());
    }));

  it('with a microVM that nobody was told of leaves the state that it was restored from', () =>
    within('resume.restored', async (client) => {
      const sandbox = client.sandboxes.attach(id);
      expect([(await sandbox.info()).state, await saved()]).toEqual(['suspended', [expect.any(String)]]);
      expect(await firecracker.traces(own.path)).toEqual([]);
      await dies(sandbox.resume());
    }));

  it('when a snapshot is written leaves what runs, with its memory', () =>
    within('snapshot.saved', async (client) => {
      const sandbox = client.sandboxes.attach(id);
      expect((await sandbox.info()).state).toBe('suspended');
      await isKept(sandbox);
      expect(await saved()).toEqual([]);
      await dies(sandbox.snapshot());
    }));

  it('while it ends a sandbox leaves that to the next', async () => {
    await within('end.recorded', async (client) => {
      const sandbox = client.sandboxes.attach(id);
      await isKept(sandbox);
      const snapshots = await client.snapshots.list();
      expect(snapshots.filter(({ status }) => status === 'building')).toEqual([]);
      expect(await saved()).toHaveLength(snapshots.filter(({ status }) => status === 'ready').length);
      for (const snapshot of snapshots) await client.snapshots.delete(snapshot.id);
      expect(await firecracker.homes(own.path)).toHaveLength(1);
      await dies(sandbox.delete());
    });
    await within(undefined, async (client) => {
      expect(await client.sandboxes.list()).toMatchObject([{ id, state: 'stopped' }, { state: 'failed' }]);
      expect([await firecracker.traces(own.path), await saved()]).toEqual([[], []]);
    });
  });
});

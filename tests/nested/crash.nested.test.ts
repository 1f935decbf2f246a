/** A chain of daemons over the real Firecracker, each killed at another step of what it does for one sandbox. The matrix of all steps is QEMU's (apps/instavmd/test). */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Step } from '@instavm/core';
import { assertNothingLeft } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { jails, START_MS, say, startNested, traces } from './support.ts';

let dataDirectory: string;
beforeAll(async () => {
  dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
});
afterAll(async () => {
  expect(await traces(dataDirectory)).toEqual([]);
  await assertNothingLeft(dataDirectory);
  await rm(dataDirectory, { recursive: true, force: true });
});

/** @param next is done in a daemon that follows the one before, and may die of it */
async function within(crashAt: Step | undefined, next: (client: InstaVM) => Promise<void>): Promise<void> {
  const daemon = await startNested(dataDirectory, crashAt === undefined ? {} : { INSTAVM_CRASH_AT: crashAt });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  try {
    await next(client);
  } finally {
    client.close();
    await (crashAt === undefined ? daemon.stop() : daemon.crash());
  }
}
const dies = (asked: Promise<unknown>): Promise<void> => expect(asked).rejects.toThrow(/fetch failed|no answer from/);
const saved = (): Promise<string[]> => readdir(join(dataDirectory, 'snapshots'));

let id: string;
const isKept = async (sandbox: Sandbox): Promise<void> =>
  expect(await say(sandbox, 'cat /dev/shm/memory disk')).toBe('kept\nkept');

describe('a daemon that is killed', { timeout: START_MS }, () => {
  it('while it makes a sandbox leaves one that has failed, and no microVM', async () => {
    await within('create.restored', (client) => dies(client.sandboxes.create({ ttlSeconds: 3600 })));
    expect(await jails(dataDirectory)).toHaveLength(1);
  });

  it('when a state is written leaves a sandbox that sleeps', () =>
    within('suspend.saved', async (client) => {
      expect((await client.sandboxes.list()).map(({ state }) => state)).toEqual(['failed']);
      expect(await traces(dataDirectory)).toEqual([]);
      const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
      id = sandbox.id;
      await say(sandbox, 'echo kept > /dev/shm/memory; echo kept > disk');
      await dies(sandbox.suspend());
    }));

  it('with a microVM that nobody was told of leaves the state that it was restored from', () =>
    within('resume.restored', async (client) => {
      const sandbox = client.sandboxes.attach(id);
      expect([(await sandbox.info()).state, await saved()]).toEqual(['suspended', [expect.any(String)]]);
      expect(await traces(dataDirectory)).toEqual([]);
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
      expect(await jails(dataDirectory)).toHaveLength(1);
      await dies(sandbox.delete());
    });
    await within(undefined, async (client) => {
      expect(await client.sandboxes.list()).toMatchObject([{ id, state: 'stopped' }, { state: 'failed' }]);
      expect([await traces(dataDirectory), await saved()]).toEqual([[], []]);
    });
  });
});

/** A chain of daemons over the real Firecracker, each killed at another step of what it does for one sandbox. The matrix of all steps is QEMU's (apps/instavmd/test). */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Step } from '@instavm/core';
import { assertNothingLeft, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, expect, it } from 'vitest';
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
async function within<T>(
  crashAt: Step | undefined,
  next: (client: InstaVM, daemon: TestDaemon) => Promise<T>,
): Promise<T> {
  const daemon = await startNested(dataDirectory, crashAt === undefined ? {} : { INSTAVM_CRASH_AT: crashAt });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  try {
    return await next(client, daemon);
  } finally {
    client.close();
    await (crashAt === undefined ? daemon.stop() : daemon.crash());
  }
}
const dies = (asked: Promise<unknown>): Promise<void> => expect(asked).rejects.toThrow(/fetch failed|no answer from/);
const saved = (): Promise<string[]> => readdir(join(dataDirectory, 'snapshots'));

it('daemons that are killed in the middle of what they do leave nothing half-made to the next', {
  timeout: START_MS + 300_000,
}, async () => {
  await within('create.restored', (client) => dies(client.sandboxes.create({ ttlSeconds: 3600 })));
  expect(await jails(dataDirectory)).toHaveLength(1);

  const id = await within('suspend.saved', async (client) => {
    expect((await client.sandboxes.list()).map(({ state }) => state)).toEqual(['failed']);
    expect(await traces(dataDirectory)).toEqual([]);
    const sandbox = await client.sandboxes.create({ ttlSeconds: 3600 });
    await say(sandbox, 'echo kept > /dev/shm/memory; echo kept > disk');
    await dies(sandbox.suspend());
    return sandbox.id;
  });
  const isKept = async (sandbox: Sandbox): Promise<void> =>
    expect(await say(sandbox, 'cat /dev/shm/memory disk')).toBe('kept\nkept');

  // It dies with a microVM that nobody was told of.
  await within('resume.restored', async (client) => {
    const sandbox = await client.sandboxes.get(id);
    expect([(await sandbox.info()).state, await saved()]).toEqual(['suspended', [expect.any(String)]]);
    expect(await traces(dataDirectory)).toEqual([]);
    await dies(sandbox.resume());
  });

  await within('snapshot.saved', async (client) => {
    const sandbox = await client.sandboxes.get(id);
    expect((await sandbox.info()).state).toBe('suspended');
    await isKept(sandbox);
    expect(await saved()).toEqual([]);
    await dies(sandbox.snapshot());
  });

  await within('end.recorded', async (client) => {
    const sandbox = await client.sandboxes.get(id);
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

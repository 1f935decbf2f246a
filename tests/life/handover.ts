/** Sandboxes that run, sleep and have snapshots, handed from daemon to daemon: to one with another release of the monitor, and back, in another place. */
import { chmod, mkdir, mkdtemp, readdir, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestDaemon } from '@instavm/testing';
import type { InstaVM } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cache, type Host, useDataDirectory, within } from './host.ts';
import { healthOf, logged, say } from './say.ts';

export function describeHandover(host: Host): void {
  const own = useDataDirectory(host);
  const POLL = host.poll;
  /** For releases and what they cache. */
  let aside: string;
  let cache: Cache;
  /** Ids. */
  let running: string;
  let asleep: string;
  let snapshot: string;
  let pids: number[];
  beforeAll(async () => {
    aside = await mkdtemp(join(tmpdir(), 'instavm-life-'));
    await chmod(aside, 0o755);
    for (const name of ['cache', 'release']) await mkdir(join(aside, name));
    cache = await host.ownCache(join(aside, 'cache'));
  });
  afterAll(() => rm(aside, { recursive: true, force: true }));

  const inDaemon = (
    env: Record<string, string>,
    body: (client: InstaVM, daemon: TestDaemon) => Promise<void>,
  ): Promise<void> => within(host, own, { INSTAVM_ON_STOP: 'keep', ...cache.env, ...env }, body);

  describe('what a daemon has', { timeout: 2 * host.startMs }, () => {
    it('is left to the next one when it is told so, but for the pool that it gave from', () =>
      inDaemon({ INSTAVM_WARM_POOL: '1' }, async (client, daemon) => {
        await expect.poll(() => healthOf(daemon), POLL).toMatchObject({ warm: 1 });
        const first = await client.sandboxes.create({ ttlSeconds: 3600, env: { WHO: 'me' } });
        await expect.poll(() => logged(daemon, 'sandbox running'), POLL).toMatchObject([{ isWarm: true }]);
        expect(await say(first, 'echo kept > /dev/shm/kept; echo $WHO')).toBe('me');
        const second = await client.sandboxes.create();
        await say(second, 'echo kept > /dev/shm/kept');
        await second.suspend();
        [running, asleep, snapshot] = [first.id, second.id, (await first.snapshot('kept')).id];
      }));

    it('is taken over by another release as it runs, with new templates; what sleeps is refused by name', async () => {
      expect(await host.homes(own.path)).toHaveLength(1);
      pids = await host.vmms(own.path);
      const refusal = {
        code: 'snapshot_incompatible',
        message: expect.stringMatching(host.releaseNames),
        hint: expect.stringContaining(`INSTAVM_${host.vmm.toUpperCase()}_BIN`),
      };
      const before = await readdir(cache.templates);
      await inDaemon(await host.anotherRelease(join(aside, 'release')), async (client) => {
        expect(await readdir(cache.templates)).toHaveLength(before.length + 1);
        const [awake, sleeper] = [client.sandboxes.attach(running), client.sandboxes.attach(asleep)];
        expect(await say(awake, 'cat /dev/shm/kept')).toBe('kept');
        expect(await host.vmms(own.path)).toEqual(pids);
        await expect(sleeper.resume()).rejects.toMatchObject(refusal);
        await expect(sleeper.run('true')).rejects.toMatchObject(refusal);
        expect((await sleeper.info()).state).toBe('suspended');
        await expect(client.sandboxes.create({ snapshotId: snapshot })).rejects.toMatchObject(refusal);
        const fresh = await client.sandboxes.create();
        expect(await say(fresh, 'echo fresh')).toBe('fresh');
        await fresh.delete();
        // It is still the older release that runs it, and that has to wake it.
        await awake.suspend();
        await expect(awake.resume()).rejects.toMatchObject(refusal);
      });
      expect(await host.traces(own.path)).toEqual([]);
    });

    it('is there again with the first release, also where its directory was moved meanwhile', async () => {
      const moved = `${own.path}-moved`;
      await rename(own.path, moved);
      own.path = moved;
      // Nobody names a backend to this one.
      await inDaemon({ INSTAVM_VMM: 'auto' }, async (client, daemon) => {
        expect(await healthOf(daemon)).toMatchObject({ backend: host.vmm });
        const made = await client.sandboxes.create({ snapshotId: snapshot });
        for (const id of [running, asleep, made.id]) {
          expect(await say(client.sandboxes.attach(id), 'cat /dev/shm/kept')).toBe('kept');
          await client.sandboxes.attach(id).delete();
        }
        await client.snapshots.delete(snapshot);
      });
    });
  });
}

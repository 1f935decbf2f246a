/** What becomes of sandboxes when something is taken from them: their VMM, the files of it, the disk, an answer. Each ends in a state that says why, and leaves nothing. */
import { mkdir, readdir, readlink, rm, statfs, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { runCommand } from '@instavm/images';
import type { Sandbox } from 'instavm';
import { afterAll, describe, expect, it } from 'vitest';
import { type Host, useDaemon, useDataDirectory } from './host.ts';
import { say } from './say.ts';

const MIB = 1024 * 1024;

export type LossOptions = {
  /** Where a data directory is whose disk may be filled: a directory, or why there is none. */
  readonly fillable: () => { readonly place: string } | { readonly why: string };
  /** Of a guest's memory, more than can have been written before it is noticed that it is. */
  readonly muchMib: number;
};

export function describeLosses(host: Host, { fillable, muchMib }: LossOptions): void {
  const own = useDataDirectory(host, () => {
    const found = fillable();
    return 'place' in found ? found.place : undefined;
  });
  const leftOpen = (): string => join(own.path, 'left-open');
  const running = useDaemon(host, own, async () => {
    await writeFile(leftOpen(), 'of the daemon’s parent');
    // Whether there is room is the disk's to say here.
    return { env: { INSTAVM_DISK_RESERVE_MB: '0' }, leftOpen: leftOpen() };
  });
  const POLL = host.poll;
  const LONG = { timeout: host.longMs };
  const create = (): Promise<Sandbox> => running.client.sandboxes.create({ ttlSeconds: 3600 });
  const homeOf = async (sandbox: Sandbox): Promise<string> =>
    host.homeOf(own.path, (await sandbox.info()).incarnationId);
  const saved = (): Promise<string[]> => readdir(join(own.path, 'snapshots'));
  const signal = async (name: NodeJS.Signals): Promise<void> => {
    for (const pid of await host.vmms(own.path)) process.kill(pid, name);
  };
  /** Leaves the VMMs standing when memory of this one has begun to be written; the daemon too, which writes that of QEMU. @param suspend begins it */
  const standStillInside = async <T>(sandbox: Sandbox, suspend: () => Promise<T>): Promise<Promise<T>[]> => {
    const { incarnationId } = await sandbox.info();
    const pids = [running.daemon.pid, ...(await host.vmms(own.path))];
    const suspending = suspend();
    // Neither asleep nor in another thread between two looks: a suspension takes a few hundred milliseconds.
    for (const until = Date.now() + POLL.timeout; !host.isSaving(own.path, incarnationId); await turn())
      if (Date.now() > until) throw new Error('nothing was saved');
    for (const pid of pids) process.kill(pid, 'SIGSTOP');
    return [suspending];
  };

  describe('a sandbox', () => {
    it('has nothing that somebody left open in its daemon', async () => {
      const sandbox = await create();
      const opened = async (pid: number): Promise<string[]> => {
        const descriptors = await readdir(`/proc/${pid}/fd`);
        return Promise.all(descriptors.map((name) => readlink(`/proc/${pid}/fd/${name}`).catch(() => '')));
      };
      expect(await opened(running.daemon.pid)).toContain(leftOpen());
      const [vmm = 0, ...others] = await host.vmms(own.path);
      expect(others).toEqual([]);
      expect(await opened(vmm)).not.toContain(leftOpen());
      await sandbox.delete();
    });

    it('whose VMM is killed has failed and says so, to the call in flight too', async () => {
      const sandbox = await create();
      const inFlight = expect(sandbox.run('sleep 300', { timeoutMs: 200_000 })).rejects.toMatchObject({
        code: 'guest_lost',
      });
      await expect.poll(() => sandbox.run('pgrep -c sleep').then((ran) => ran.exitCode), POLL).toBe(0);
      await signal('SIGKILL');
      await inFlight;
      const stateReason = expect.stringContaining('the microVM ended by itself');
      await expect.poll(() => sandbox.info(), POLL).toMatchObject({ state: 'failed', stateReason });
      expect(await host.traces(own.path)).toEqual([]);
    });

    it('whose VMM hangs is not suspended, which is said in time, and ends like any other', async () => {
      const sandbox = await create();
      await say(sandbox, 'true');
      await signal('SIGSTOP');
      await expect(sandbox.suspend()).rejects.toMatchObject({ code: 'guest_unresponsive' });
      expect((await sandbox.info()).state).toBe('running');
      await sandbox.delete();
      expect(await host.traces(own.path)).toEqual([]);
    });

    it('whose VMM has lost its sockets runs on and cannot be suspended; it ends like any other', async () => {
      const sandbox = await create();
      const home = await homeOf(sandbox);
      for (const name of host.sockets) await rm(join(home, name));
      await expect(sandbox.suspend()).rejects.toMatchObject({ code: 'snapshot_failed' });
      expect(await say(sandbox, 'echo still here')).toBe('still here');
      await sandbox.delete();
      expect(await host.traces(own.path)).toEqual([]);
    });
  });

  describe('a disk without room for a saved state', () => {
    /** Of the filesystem that snapshots are on. */
    const freeMib = async (): Promise<number> => {
      const { bavail, bsize } = await statfs(own.path);
      return Math.floor((bavail * bsize) / MIB);
    };
    const fillers = (): string => join(own.path, 'fillers');
    /** What somebody else wants of it meanwhile is no failure. */
    const fill = async (mib: number): Promise<void> => {
      await mkdir(fillers(), { recursive: true });
      const path = join(fillers(), `${mib}-${Math.random()}`);
      await runCommand('fallocate', ['-l', String(mib * MIB), path]).catch(() => {});
    };
    const empty = (): Promise<void> => rm(fillers(), { recursive: true, force: true });
    afterAll(empty);

    it(
      'fails a suspension and a snapshot by name; the sandbox goes on, and nothing half-written stays',
      LONG,
      async (context) => {
        const found = fillable();
        if ('why' in found) return context.skip(found.why);
        const sandbox = await create();
        await say(sandbox, `echo memory > /dev/shm/state; yes | head -c ${muchMib}M > /dev/shm/much`);
        // As much as the memory of a microVM may take at worst, without which the daemon would not begin.
        await fill((await freeMib()) - 600);
        const [suspending] = await standStillInside(sandbox, () =>
          expect(sandbox.suspend()).rejects.toMatchObject({ code: 'capacity_unavailable' }),
        );
        try {
          // The daemon's database keeps a little.
          for (let left = await freeMib(); left > 48; left = await freeMib())
            await fill(2 ** Math.floor(Math.log2(left - 16)));
        } finally {
          process.kill(running.daemon.pid, 'SIGCONT');
        }
        await signal('SIGCONT');
        await suspending;
        // Now there is none from the start.
        await expect(sandbox.snapshot()).rejects.toMatchObject({ code: 'capacity_unavailable' });
        const told = (await running.client.snapshots.list()).map(({ status }) => status);
        expect(told.filter((status) => status !== 'failed')).toEqual([]);
        expect(await saved()).toEqual([]);
        const { incarnationId } = await sandbox.info();
        expect(host.isSaving(own.path, incarnationId)).toBe(false);
        expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
        await empty();
        await sandbox.suspend();
        expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
        await sandbox.delete();
        for (const { id } of await running.client.snapshots.list()) await running.client.snapshots.delete(id);
        expect(await host.traces(own.path)).toEqual([]);
      },
    );
  });

  describe('a daemon that is killed', () => {
    it(
      'is followed by one that ends what it cannot take over, whatever of it is there, and goes on with the rest',
      LONG,
      async () => {
        const [whole, unmarked, removed, held] = await Promise.all([create(), create(), create(), create()]);
        await say(whole, 'echo kept > /dev/shm/kept');
        // Enough that writing it is seen.
        await say(held, `echo kept > /dev/shm/kept; yes | head -c ${muchMib}M > /dev/shm/much`);
        expect(await host.vmms(own.path)).toHaveLength(4);
        const homes = await Promise.all([unmarked, removed].map(homeOf));
        // Killed while the memory of one is written: its vCPUs are held.
        const [suspending] = await standStillInside(held, () => expect(held.suspend()).rejects.toThrow());
        await running.daemon.crash();
        await signal('SIGCONT');
        await suspending;
        await writeFile(join(String(homes[0]), 'vmm.json'), '{"uid":');
        await rm(String(homes[1]), { recursive: true });

        await running.again();
        const { client } = running;
        for (const sandbox of [whole, held]) {
          const found = await client.sandboxes.get(sandbox.id);
          expect([await found.info(), await say(found, 'cat /dev/shm/kept')]).toMatchObject([
            { state: 'running' },
            'kept',
          ]);
        }
        for (const sandbox of [unmarked, removed]) {
          const { state, stateReason } = await (await client.sandboxes.get(sandbox.id)).info();
          expect([state, stateReason]).toEqual(['failed', 'its microVM ended while no daemon ran']);
        }
        expect(await host.homes(own.path)).toHaveLength(2);
        expect(await host.vmms(own.path)).toHaveLength(2);
        expect(await saved()).toEqual([]);
        for (const { id } of await client.sandboxes.list()) await client.sandboxes.attach(id).delete();
        expect(await host.traces(own.path)).toEqual([]);
      },
    );
  });
}

/** What becomes of sandboxes when something is taken from them: their Firecracker, the files of their jail, the disk, an answer. Each ends in a state that says why, and leaves nothing. */
import { mkdir, mkdtemp, readdir, rm, stat, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { runCommand } from '@instavm/images';
import { assertNothingLeft, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { firecrackers, jails, POLL, START_MS, say, startNested, tellOnFailure, traces } from './support.ts';

const MIB = 1024 * 1024;

let dataDirectory: string;
let daemon: TestDaemon;
let client: InstaVM;

const begin = async (): Promise<void> => {
  // Whether there is room is the disk's to say here.
  daemon = await startNested(dataDirectory, { INSTAVM_DISK_RESERVE_MB: '0' });
  client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
};
const create = (): Promise<Sandbox> => client.sandboxes.create({ ttlSeconds: 3600 });
const jailOf = async (sandbox: Sandbox): Promise<string> => {
  const { incarnationId } = await sandbox.info();
  return join(dataDirectory, 'jails/firecracker', String(incarnationId?.replace('_', '-')));
};
const isFailed = async (sandbox: Sandbox, reason: unknown): Promise<void> => {
  await expect.poll(() => sandbox.info(), POLL).toMatchObject({ state: 'failed', stateReason: reason });
};

beforeAll(async () => {
  dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
  await begin();
}, START_MS);
beforeEach(tellOnFailure(() => daemon));
afterAll(async () => {
  await empty();
  client?.close();
  await daemon?.stop();
  expect(await traces(dataDirectory)).toEqual([]);
  await assertNothingLeft(dataDirectory);
  await rm(dataDirectory, { recursive: true, force: true });
});

describe('a sandbox', () => {
  it('whose Firecracker is killed has failed and says so, to the call in flight too', async () => {
    const sandbox = await create();
    const inFlight = expect(sandbox.run('sleep 300', { timeoutMs: 200_000 })).rejects.toMatchObject({
      code: 'guest_lost',
    });
    await expect.poll(() => sandbox.run('pgrep -c sleep').then((ran) => ran.exitCode), POLL).toBe(0);
    for (const pid of await firecrackers()) process.kill(pid, 'SIGKILL');
    await inFlight;
    await isFailed(sandbox, expect.stringContaining('the microVM ended by itself'));
    expect(await traces(dataDirectory)).toEqual([]);
  });

  it('whose Firecracker hangs is not suspended, which is said in time, and ends like any other', async () => {
    const sandbox = await create();
    await say(sandbox, 'true');
    for (const pid of await firecrackers()) process.kill(pid, 'SIGSTOP');
    await expect(sandbox.suspend()).rejects.toMatchObject({ code: 'guest_unresponsive' });
    expect((await sandbox.info()).state).toBe('running');
    await sandbox.delete();
    expect(await traces(dataDirectory)).toEqual([]);
  });

  it('whose jail has lost its sockets runs on and cannot be suspended; it ends like any other', async () => {
    const sandbox = await create();
    const root = join(await jailOf(sandbox), 'root');
    for (const name of ['api.sock', 'vsock.sock']) await rm(join(root, name));
    await expect(sandbox.suspend()).rejects.toMatchObject({ code: 'snapshot_failed' });
    expect(await say(sandbox, 'echo still here')).toBe('still here');
    await sandbox.delete();
    expect(await traces(dataDirectory)).toEqual([]);
  });
});

/** Of the filesystem that snapshots are on. */
async function freeMib(): Promise<number> {
  const { bavail, bsize } = await statfs(dataDirectory);
  return Math.floor((bavail * bsize) / MIB);
}
const fillers = (): string => join(dataDirectory, 'fillers');
/** What somebody else wants of it meanwhile is no failure. */
async function fill(mib: number): Promise<void> {
  await mkdir(fillers(), { recursive: true });
  const path = join(fillers(), `${mib}-${Math.random()}`);
  await runCommand('fallocate', ['-l', String(mib * MIB), path]).catch(() => {});
}
const empty = (): Promise<void> => rm(fillers(), { recursive: true, force: true });

describe('a disk without room for a saved state', () => {
  it('fails a suspension and a snapshot by name; the sandbox goes on, and nothing half-written stays', {
    timeout: 240_000,
  }, async () => {
    const sandbox = await create();
    await say(sandbox, 'echo memory > /dev/shm/state; yes | head -c 64M > /dev/shm/much');
    const root = join(await jailOf(sandbox), 'root');
    const free = await freeMib();
    // As much as the memory of a microVM may take at worst, without which the daemon would not begin.
    await fill(free - 600);
    const suspending = expect(sandbox.suspend()).rejects.toMatchObject({ code: 'capacity_unavailable' });
    await expect.poll(() => readdir(root), { ...POLL, interval: 5 }).toContain('memory');
    // The daemon's database keeps a little.
    for (let left = await freeMib(); left > 48; left = await freeMib())
      await fill(2 ** Math.floor(Math.log2(left - 16)));
    await suspending;
    // Now there is none from the start.
    await expect(sandbox.snapshot()).rejects.toMatchObject({ code: 'capacity_unavailable' });
    const saved = (await client.snapshots.list()).map(({ status }) => status);
    expect(saved.filter((status) => status !== 'failed')).toEqual([]);
    expect(await readdir(join(dataDirectory, 'snapshots'))).toEqual([]);
    expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
    expect(await readdir(root)).not.toContain('memory');
    await empty();
    await sandbox.suspend();
    expect(await say(sandbox, 'cat /dev/shm/state')).toBe('memory');
    await sandbox.delete();
    for (const { id } of await client.snapshots.list()) await client.snapshots.delete(id);
    expect(await traces(dataDirectory)).toEqual([]);
  });
});

describe('a daemon that is killed', () => {
  it('is followed by one that ends what it cannot take over, whatever of the jails is there, and goes on with the rest', {
    timeout: 240_000,
  }, async () => {
    const [whole, unmarked, removed, held] = await Promise.all([create(), create(), create(), create()]);
    await say(whole, 'echo kept > /dev/shm/kept');
    await say(held, 'echo kept > /dev/shm/kept');
    expect(await firecrackers()).toHaveLength(4);
    // Killed while the memory of one is written: its vCPUs are held.
    const suspending = expect(held.suspend()).rejects.toThrow();
    const root = join(await jailOf(held), 'root');
    const written = async (): Promise<number> => (await stat(join(root, 'memory')).catch(() => undefined))?.blocks ?? 0;
    await expect.poll(written, { ...POLL, interval: 5 }).toBeGreaterThan(0);
    await writeFile(join(await jailOf(unmarked), 'vmm.json'), '{"uid":');
    const removedJail = await jailOf(removed);
    await daemon.crash();
    await suspending;
    await rm(removedJail, { recursive: true });

    client.close();
    await begin();
    for (const sandbox of [whole, held]) {
      const found = await client.sandboxes.get(sandbox.id);
      expect([await found.info(), await say(found, 'cat /dev/shm/kept')]).toMatchObject([{ state: 'running' }, 'kept']);
    }
    for (const sandbox of [unmarked, removed]) {
      const { state, stateReason } = await (await client.sandboxes.get(sandbox.id)).info();
      expect([state, stateReason]).toEqual(['failed', 'its microVM ended while no daemon ran']);
    }
    expect(await jails(dataDirectory)).toHaveLength(2);
    expect(await firecrackers()).toHaveLength(2);
    expect(await readdir(join(dataDirectory, 'snapshots'))).toEqual([]);
    for (const { id } of await client.sandboxes.list()) await client.sandboxes.attach(id).delete();
    expect(await traces(dataDirectory)).toEqual([]);
  });
});

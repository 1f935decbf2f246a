/** Sandboxes that run, sleep and have snapshots, handed from daemon to daemon: to one with another release of Firecracker, and back, in another place. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { assertNothingLeft, type TestDaemon } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { firecrackers, jails, logged, POLL, START_MS, say, startNested, traces } from './support.ts';

let dataDirectory: string;
/** Ids. */
let running: string;
let asleep: string;
let snapshot: string;
let pids: number[];
beforeAll(async () => {
  dataDirectory = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
});
afterAll(async () => {
  expect(await traces(dataDirectory)).toEqual([]);
  await assertNothingLeft(dataDirectory);
  await rm(dataDirectory, { recursive: true, force: true });
});

/** The same programs under another version, which is in the names of their files as in those of releases. @returns settings of a daemon */
async function anotherRelease(directory: string): Promise<Record<string, string>> {
  await mkdir(directory);
  const settings: Record<string, string> = {};
  for (const name of ['FIRECRACKER_BIN', 'JAILER_BIN']) {
    const path = String(process.env[name]);
    const { stdout } = await promisify(execFile)(path, ['--version']);
    const [, version = '', patch = ''] = /v((?:\d+\.){2}(\d+))/.exec(stdout) ?? [];
    const other = version.slice(0, -1) + ((Number(patch.at(-1)) + 1) % 10);
    const program = await readFile(path);
    for (let at = program.indexOf(version); at >= 0; at = program.indexOf(version, at)) program.write(other, at);
    const copy = join(directory, `${name.startsWith('JAILER') ? 'jailer' : 'firecracker'}-v${other}-x86_64`);
    await writeFile(copy, program, { mode: 0o755 });
    settings[`INSTAVM_${name}`] = copy;
  }
  return settings;
}

async function within(
  env: Record<string, string>,
  body: (client: InstaVM, daemon: TestDaemon) => Promise<void>,
): Promise<void> {
  const daemon = await startNested(dataDirectory, { INSTAVM_ON_STOP: 'keep', ...env });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  try {
    await body(client, daemon);
  } finally {
    client.close();
    await daemon.stop();
  }
}

const healthOf = async (daemon: TestDaemon): Promise<Record<string, unknown>> =>
  (await (await fetch(`${daemon.baseUrl}/healthz`)).json()) as Record<string, unknown>;

describe('what a daemon has', { timeout: 2 * START_MS }, () => {
  it('is left to the next one when it is told so, but for the pool that it gave from', () =>
    within({ INSTAVM_WARM_POOL: '1' }, async (client, daemon) => {
      await expect.poll(() => healthOf(daemon), POLL).toMatchObject({ warm: 1 });
      const first = await client.sandboxes.create({ ttlSeconds: 3600, env: { WHO: 'me' } });
      expect(logged(daemon, 'sandbox running')).toMatchObject([{ isWarm: true }]);
      expect(await say(first, 'echo kept > /dev/shm/kept; echo $WHO')).toBe('me');
      const second = await client.sandboxes.create();
      await say(second, 'echo kept > /dev/shm/kept');
      await second.suspend();
      [running, asleep, snapshot] = [first.id, second.id, (await first.snapshot('kept')).id];
    }));

  it('is taken over by another release as it runs, with new templates; what sleeps is refused by name', async () => {
    expect(await jails(dataDirectory)).toHaveLength(1);
    pids = await firecrackers();
    const refusal = {
      code: 'snapshot_incompatible',
      message: expect.stringMatching(/made by Firecracker (\S+) on .*, and this daemon runs Firecracker (?!\1)\S+ on /),
      hint: expect.stringContaining('INSTAVM_FIRECRACKER_BIN'),
    };
    const templates = join(String(process.env.INSTAVM_CACHE_DIR), 'templates');
    const before = await readdir(templates);
    await within(await anotherRelease(join(dataDirectory, 'release')), async (client) => {
      expect(await readdir(templates)).toHaveLength(before.length + 1);
      const [awake, sleeper] = [client.sandboxes.attach(running), client.sandboxes.attach(asleep)];
      expect(await say(awake, 'cat /dev/shm/kept')).toBe('kept');
      expect(await firecrackers()).toEqual(pids);
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
    expect(await traces(dataDirectory)).toEqual([]);
  });

  it('is there again with the first release, also where its directory was moved meanwhile', async () => {
    const moved = `${dataDirectory}-moved`;
    await rename(dataDirectory, moved);
    dataDirectory = moved;
    // Nobody names a backend to this one.
    await within({ INSTAVM_VMM: 'auto' }, async (client, daemon) => {
      expect(await healthOf(daemon)).toMatchObject({ backend: 'firecracker' });
      const made = await client.sandboxes.create({ snapshotId: snapshot });
      for (const id of [running, asleep, made.id]) {
        expect(await say(client.sandboxes.attach(id), 'cat /dev/shm/kept')).toBe('kept');
        await client.sandboxes.attach(id).delete();
      }
      await client.snapshots.delete(snapshot);
    });
  });
});

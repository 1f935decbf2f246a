/** Another release of Firecracker under a daemon whose sandboxes run, sleep, and have snapshots; and the first one again. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { assertNothingLeft } from '@instavm/testing';
import { InstaVM } from 'instavm';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { firecrackers, START_MS, say, startNested, traces } from './support.ts';

let dataDirectory: string;
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

async function within<T>(env: Record<string, string>, body: (client: InstaVM) => Promise<T>): Promise<T> {
  const daemon = await startNested(dataDirectory, { INSTAVM_ON_STOP: 'keep', ...env });
  const client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  try {
    return await body(client);
  } finally {
    client.close();
    await daemon.stop();
  }
}

it('an upgrade takes over what runs, makes templates anew, and refuses what sleeps by name until it is undone', {
  timeout: 2 * START_MS,
}, async () => {
  const { running, asleep, snapshot } = await within({}, async (client) => {
    const [running, asleep] = [await client.sandboxes.create({ ttlSeconds: 3600 }), await client.sandboxes.create()];
    for (const each of [running, asleep]) await say(each, 'echo kept > /dev/shm/kept');
    const snapshot = await running.snapshot('kept');
    await asleep.suspend();
    return { running: running.id, asleep: asleep.id, snapshot: snapshot.id };
  });
  const pids = await firecrackers();
  expect(pids).toHaveLength(1);

  const refusal = {
    code: 'snapshot_incompatible',
    message: expect.stringMatching(/made by Firecracker (\S+) on .*, and this daemon runs Firecracker (?!\1)\S+ on /),
    hint: expect.stringContaining('INSTAVM_FIRECRACKER_BIN'),
  };
  const templates = join(String(process.env.INSTAVM_CACHE_DIR), 'templates');
  const before = await readdir(templates);
  await within(await anotherRelease(join(dataDirectory, 'release')), async (client) => {
    expect(await readdir(templates)).toHaveLength(before.length + 1);
    expect(await say(client.sandboxes.attach(running), 'cat /dev/shm/kept')).toBe('kept');
    expect(await firecrackers()).toEqual(pids);
    await expect(client.sandboxes.attach(asleep).resume()).rejects.toMatchObject(refusal);
    await expect(client.sandboxes.attach(asleep).run('true')).rejects.toMatchObject(refusal);
    expect((await client.sandboxes.attach(asleep).info()).state).toBe('suspended');
    await expect(client.sandboxes.create({ snapshotId: snapshot })).rejects.toMatchObject(refusal);
    const fresh = await client.sandboxes.create();
    expect(await say(fresh, 'echo fresh')).toBe('fresh');
    await fresh.delete();
    // It is still the older release that runs it, and that has to wake it.
    await client.sandboxes.attach(running).suspend();
    await expect(client.sandboxes.attach(running).resume()).rejects.toMatchObject(refusal);
  });

  await within({}, async (client) => {
    const made = await client.sandboxes.create({ snapshotId: snapshot });
    for (const id of [running, asleep, made.id]) {
      expect(await say(client.sandboxes.attach(id), 'cat /dev/shm/kept')).toBe('kept');
      await client.sandboxes.attach(id).delete();
    }
    await client.snapshots.delete(snapshot);
  });
});

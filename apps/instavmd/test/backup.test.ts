/** A backup that is taken while the daemon works, and the daemon that is made of it. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, open, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { inheritedEnvironment, startTestDaemon, type TestDaemon } from '@instavm/testing';
import { processToken } from '@instavm/vmm/host-files';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Progress, readDescription, unpack } from '../src/backup/archive.ts';
import { backUp } from '../src/backup/backup.ts';
import type { Config } from '../src/config.ts';
import { type Api, apiOf } from './api.ts';

const INSTAVMD = fileURLToPath(new URL('../bin/instavmd', import.meta.url));

describe('a backup', () => {
  let directory: string;
  let daemon: TestDaemon;
  let api: Api;
  let backup: string;
  const ids: Record<'suspended' | 'running' | 'snapshot', string> = { suspended: '', running: '', snapshot: '' };

  const instavmd = async (...args: readonly string[]): Promise<{ code: number; said: string }> => {
    const env = {
      ...inheritedEnvironment(),
      INSTAVM_DATA_DIR: daemon.dataDirectory,
      INSTAVM_CACHE_DIR: join(directory, 'cache'),
    };
    const child = spawn(INSTAVMD, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    let said = '';
    child.stderr.on('data', (piece) => (said += piece));
    const [code] = await once(child, 'close');
    return { code: code as number, said };
  };

  beforeAll(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-backup-test-'));
    backup = join(directory, 'backup');
    await mkdir(join(directory, 'cache'));
    daemon = await startTestDaemon({ vmm: 'fake' });
    api = apiOf(daemon);
    ids.running = await api.createSession();
    ids.suspended = await api.createSession();
    await api.execute(ids.suspended, 'echo what I wrote > note');
    ids.snapshot = (await api.json('POST', `/v2/sandboxes/${ids.suspended}/snapshots`, { name: 'kept' })).body.id;
    await api.execute(ids.suspended, 'echo and more >> note');
    await api.json('POST', `/v2/sandboxes/${ids.suspended}/suspend`, {});
    // Records and saved states come and go while it is taken.
    let isDone = false;
    const writing = (async () => {
      const writer = await api.createSession();
      for (let count = 0; !isDone; count++) {
        const { body } = await api.json('POST', `/v2/sandboxes/${writer}/snapshots`, { name: `passing-${count}` });
        await api.request('DELETE', `/v2/snapshots/${body.id}`);
      }
    })();
    const { code, said } = await instavmd('backup', backup);
    isDone = true;
    await writing;
    expect([code, said]).toEqual([
      0,
      expect.stringMatching(/copying the database[\s\S]* saved states and the database/),
    ]);
  });
  afterAll(async () => {
    await daemon.stop();
    await rm(directory, { recursive: true, force: true });
  });

  it('leaves nothing in the data directory, and is for its owner only', async () => {
    expect((await readdir(daemon.dataDirectory)).filter((name) => name.startsWith('.backup'))).toEqual([]);
    expect((await readdir(backup)).sort()).toEqual(['backup.json', 'data.tar']);
    const file = await open(backup);
    expect((await file.stat()).mode & 0o077).toBe(0);
    await file.close();
    expect(await instavmd('backup', backup)).toMatchObject({ code: 1, said: expect.stringContaining('exists') });
  });

  it('becomes a data directory, whose daemon has the accounts, the sandboxes and what they kept', async () => {
    const dataDirectory = join(directory, 'restored');
    expect(await instavmd('restore', backup, '--data-dir', dataDirectory)).toMatchObject({ code: 0 });
    expect(await instavmd('restore', backup, '--data-dir', dataDirectory)).toMatchObject({
      code: 1,
      said: expect.stringContaining('is not empty'),
    });
    // Of processes that were killed: the one before ours with its pid.
    const token = processToken().replace(/\d+$/, '1');
    const cache = join(directory, 'cache');
    const left = [
      `${dataDirectory}/.backup-${token}-00000000`,
      `${cache}/templates/.partial-0123456789ab-${token}-00000000`,
    ];
    const living = join(cache, `templates/.partial-0123456789ab-${processToken()}-00000000`);
    for (const path of [...left, living]) await mkdir(path, { recursive: true });
    const restored = await startTestDaemon({ vmm: 'fake', dataDirectory, env: { INSTAVM_CACHE_DIR: cache } });
    try {
      expect(await readdir(join(cache, 'templates'))).toEqual([basename(living)]);
      expect((await readdir(dataDirectory)).filter((name) => name.startsWith('.backup'))).toEqual([]);
      expect(restored.apiKey).toBe(daemon.apiKey);
      const there = apiOf(restored);
      const note = await there.execute(ids.suspended, 'cat note');
      expect(note.body.stdout).toBe('what I wrote\nand more\n');
      const { body: copy } = await there.json('POST', '/v2/sandboxes', { snapshot_id: ids.snapshot });
      expect((await there.execute(copy.id, 'cat note')).body.stdout).toBe('what I wrote\n');
      // What ran has no microVM there, and says so.
      expect((await there.request('GET', `/v2/sandboxes/${ids.running}`)).body.state).toBe('failed');
      // Every record of a saved state that came along has its files.
      const { body: listed } = await there.request('GET', '/v2/snapshots');
      for (const { id, status } of listed.snapshots.filter((each: { status: string }) => each.status === 'ready')) {
        const made = await there.json('POST', '/v2/sandboxes', { snapshot_id: id });
        expect([status, made.status, made.body.detail]).toEqual(['ready', 201, undefined]);
      }
    } finally {
      await restored.stop();
    }
  });

  it('has no record of a snapshot whose saved state is gone, and has that of a suspended sandbox', async () => {
    const states = join(daemon.dataDirectory, 'snapshots');
    const before = await readdir(states);
    const snapshot = (await api.json('POST', `/v2/sandboxes/${ids.running}/snapshots`, { name: 'lost' })).body;
    const sandbox = await api.createSession();
    await api.json('POST', `/v2/sandboxes/${sandbox}/suspend`, {});
    const lost = (await readdir(states)).filter((name) => !before.includes(name));
    expect(lost.length).toBe(2);
    for (const name of lost) await rm(join(states, name), { recursive: true });
    const { code, said } = await instavmd('backup', join(directory, 'without'));
    const [cannot, leftOut] = ['its suspended sandbox cannot be resumed', 'its snapshot is left out'];
    expect([code, said]).toEqual([
      0,
      expect.stringMatching(new RegExp(`${cannot}[\\s\\S]*${leftOut}|${leftOut}[\\s\\S]*${cannot}`)),
    ]);

    const dataDirectory = join(directory, 'restored-without');
    expect(await instavmd('restore', join(directory, 'without'), '--data-dir', dataDirectory)).toMatchObject({
      code: 0,
    });
    const restored = await startTestDaemon({ vmm: 'fake', dataDirectory });
    try {
      const there = apiOf(restored);
      expect((await there.request('GET', `/v2/snapshots/${snapshot.id}`)).body.code).toBe('snapshot_not_found');
      expect((await there.request('GET', `/v2/snapshots/${ids.snapshot}`)).body.status).toBe('ready');
      expect((await there.request('GET', `/v2/sandboxes/${sandbox}`)).body.state).toBe('suspended');
      expect((await there.json('POST', `/v2/sandboxes/${sandbox}/resume`, {})).body.code).toBe('snapshot_damaged');
    } finally {
      await restored.stop();
    }
  });

  it('is refused by name when it was damaged or cut short, and leaves nothing', async () => {
    const target = join(directory, 'never');
    const refused = async (problem: string): Promise<void> => {
      const { code, said } = await instavmd('restore', backup, '--data-dir', target);
      expect([code, said]).toEqual([1, expect.stringContaining(problem)]);
      expect(said).toContain('the backup is damaged');
      expect((await readdir(directory)).filter((name) => name.startsWith('never'))).toEqual([]);
    };
    const archive = join(backup, 'data.tar');
    const [whole, description] = [await readFile(archive), await readFile(join(backup, 'backup.json'))];
    const flipped = Buffer.from(whole);
    const at = whole.indexOf('what I wrote');
    expect(at).toBeGreaterThan(0);
    flipped[at] = 0x57;
    await writeFile(archive, flipped);
    await refused('data.tar is not what was packed');
    await writeFile(archive, whole.subarray(0, whole.length / 2));
    await refused('data.tar');
    await writeFile(archive, whole);
    await writeFile(join(backup, 'backup.json'), '{"format": 2}');
    await refused('does not describe a backup');
    await writeFile(join(backup, 'backup.json'), description);
  });

  it('is one of two that are taken into the same directory at once, whole; the other is refused', async () => {
    const target = join(directory, 'twice');
    const config = { INSTAVM_DATA_DIR: daemon.dataDirectory, INSTAVM_CACHE_DIR: join(directory, 'cache') } as Config;
    const take = (say: Progress): Promise<void> => backUp(config, target, { withTemplates: false }, say);
    let second: Promise<unknown> = Promise.resolve('never taken');
    const first = take((sentence) => {
      if (sentence.startsWith('packing')) second = take(() => {}).catch((error: unknown) => error);
    }).catch((error: unknown) => error);
    const outcomes = [await first, await second];
    expect(outcomes).toContain(undefined);
    expect(outcomes).toContainEqual(expect.objectContaining({ code: 'conflict' }));
    const description = await readDescription(target);
    const unpacked = join(directory, 'unpacked');
    await mkdir(unpacked);
    await unpack(join(target, 'data.tar'), description.archives['data.tar'], unpacked, () => {});
    expect((await readdir(directory)).filter((name) => name.startsWith('twice'))).toEqual(['twice']);
  });

  it('of what is no data directory is not taken', async () => {
    const env = { ...inheritedEnvironment(), INSTAVM_DATA_DIR: join(directory, 'nowhere') };
    const child = spawn(INSTAVMD, ['backup', join(directory, 'of-nothing')], {
      env,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    let said = '';
    child.stderr.on('data', (piece) => (said += piece));
    const [code] = await once(child, 'close');
    expect([code, said]).toEqual([1, expect.stringContaining('is no data directory of a daemon')]);
  });
});

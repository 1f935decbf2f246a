/** Snapshots that fail, without a Firecracker. */
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { FirecrackerFault, FirecrackerUnreachable } from './api.ts';
import { Jail } from './jail.ts';
import { UNLIMITED } from './machine.ts';
import type { FirecrackerProcess } from './process.ts';
import { takeSnapshot } from './snapshot.ts';

const SIZE = { memoryMib: 1, vcpus: 1 };

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'instavm-snapshot-'));
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** @returns what was done to the microVM */
async function failed(how: { paused?: Error; holes?: Error }): Promise<string[]> {
  const done: string[] = [];
  const binaries = { firecracker: '/opt/firecracker', jailer: '/opt/jailer' };
  const site = { binaries, baseDirectory: join(root, 'jails'), parentCgroup: 'instavm-none', disk: UNLIMITED };
  const own = { uid: process.getuid?.() || 7, templateKey: 'k', templateBuildId: 'b' };
  const jail = await Jail.create({ ...site, observer: () => {} }, 'vm-a', own);
  const directory = join(root, 'template');
  await mkdir(directory);
  await writeFile(join(directory, 'template.json'), JSON.stringify({ stateSha256Hex: 'b' }));
  const setState = async (state: string): Promise<void> => {
    done.push(state);
    if (state === 'Paused' && how.paused !== undefined) throw how.paused;
  };
  const vmm = { jail, api: { setState }, dropStreams: () => done.push('dropped') };
  const holesAreKept = async (): Promise<boolean> => {
    if (how.holes !== undefined) throw how.holes;
    return true;
  };
  const then = 'end';
  const taken = takeSnapshot(vmm as unknown as FirecrackerProcess, { size: SIZE, directory }, join(root, 'made'), {
    then,
    holesAreKept,
  });
  await expect(taken).rejects.toMatchObject({
    code: expect.stringMatching(/^(snapshot_failed|capacity_unavailable)$/),
  });
  expect((await readdir(root)).sort()).toEqual(['jails', 'template']);
  await rm(join(root, 'jails'), { recursive: true });
  await rm(directory, { recursive: true });
  return done;
}

it('a guest that was not held yet goes on undisturbed, one that may be held is let go', async () => {
  const full = Object.assign(new Error('no space left on device'), { code: 'ENOSPC' });
  expect(await failed({ holes: full })).toEqual([]);
  expect(await failed({ paused: new FirecrackerUnreachable('gone') })).toEqual(['Paused']);
  expect(await failed({ paused: new FirecrackerFault('no answer') })).toEqual(['Paused', 'Resumed', 'dropped']);
});

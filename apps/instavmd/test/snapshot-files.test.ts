/** Directories of saved states, with small files in place of memory. */
import { readdirSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { newFilesId, type SnapshotFiles } from '@instavm/core';
import { createFakeVmm } from '@instavm/vmm/fake';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { snapshotFiles } from '../src/snapshot-files.ts';

const FILES = 500;

describe('the directory of a saved state', () => {
  let directory: string;
  let files: SnapshotFiles;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), 'instavm-snapshot-files-'));
    files = snapshotFiles(directory, createFakeVmm());
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  async function made(name: string): Promise<void> {
    await mkdir(join(directory, name));
    await Promise.all(Array.from({ length: FILES }, (_, index) => writeFile(join(directory, name, `${index}`), 'x')));
  }

  it('is never seen with a part of what it had, while it is removed', async () => {
    const id = newFilesId();
    await made(id);
    let isDone = false;
    const removing = files.remove(id).finally(() => {
      isDone = true;
    });
    const seen = new Set<number>();
    while (!isDone) {
      try {
        seen.add(readdirSync(join(directory, id)).length);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOENT' });
      }
      await turn();
    }
    await removing;
    expect([...seen].filter((count) => count !== FILES)).toEqual([]);
    expect(await readdir(directory)).toEqual([]);
    await files.remove(id);
  });

  it('goes with all that no record needs, and what a killed daemon had begun to remove', async () => {
    const [kept, doomed, begun] = [newFilesId(), newFilesId(), newFilesId()];
    for (const name of [kept, doomed, `.removed-${begun}`]) await made(name);
    await writeFile(join(directory, 'foreign'), 'x');
    expect(await files.removeAllBut(new Set([kept]))).toBe(2);
    expect((await readdir(directory)).sort()).toEqual(['foreign', kept].sort());
  });
});

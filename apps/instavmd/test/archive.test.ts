/** Archives of a backup: what is packed beside a daemon that goes on, and what cannot be unpacked. */
import { unlinkSync } from 'node:fs';
import { link, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { pack, unpack } from '../src/backup/archive.ts';

const MIB = 1024 * 1024;
/** Longer than what is packed between two reports of progress. */
const LONG_BYTES = 260 * MIB;

const quietly = (): void => {};

describe('an archive', () => {
  let root: string;
  let directory: string;
  beforeAll(async () => {
    root = await mkdtemp(join(tmpdir(), 'instavm-archive-test-'));
    directory = join(root, 'what');
    await mkdir(directory);
  });
  afterAll(() => rm(root, { recursive: true, force: true }));

  it('is made of a file whose other link goes meanwhile', async () => {
    const other = join(root, 'other');
    await writeFile(join(directory, 'long'), Buffer.alloc(LONG_BYTES, 7));
    await link(join(directory, 'long'), other);
    const path = join(root, 'touched.tar');
    const made = await pack(path, directory, ['long'], () => unlinkSync(other));
    expect(await readdir(root)).not.toContain('other');
    const target = join(root, 'untouched');
    await mkdir(target);
    await unpack(path, made, target, quietly);
    expect((await readFile(join(target, 'long'))).equals(Buffer.alloc(LONG_BYTES, 7))).toBe(true);
  });

  it('is not made of what is not there', async () => {
    await expect(pack(join(root, 'nothing.tar'), directory, ['nowhere'], quietly)).rejects.toMatchObject({
      code: 'store_unavailable',
      message: expect.stringContaining('nowhere'),
    });
  });

  it('that is whole and cannot be unpacked is not called damaged', async () => {
    await writeFile(join(directory, 'short'), 'short');
    const path = join(root, 'short.tar');
    const made = await pack(path, directory, ['short'], quietly);
    const file = join(root, 'file');
    await writeFile(file, '');
    await expect(unpack(path, made, file, quietly)).rejects.toMatchObject({
      code: 'store_unavailable',
      message: expect.stringContaining('Not a directory'),
    });
  });

  it('of another digest is not unpacked at all', async () => {
    await writeFile(join(directory, 'short'), 'short');
    const path = join(root, 'changed.tar');
    const made = await pack(path, directory, ['short'], quietly);
    const target = join(root, 'empty');
    await mkdir(target);
    await expect(unpack(path, { ...made, sha256Hex: '00' }, target, quietly)).rejects.toMatchObject({
      code: 'backup_damaged',
    });
    expect(await readdir(target)).toEqual([]);
  });
});

/** Templates that are given their name, with small files in place of memory. */
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TemplateKey } from '@instavm/core';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { makeTemplate, readBuildId, requireBuildId } from './template-build.ts';

const KEY = 'k' as TemplateKey;

describe('a template that was made', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'instavm-make-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  const find = async (directory: string, key: TemplateKey): Promise<string | undefined> => {
    const memory = await readFile(join(directory, key, 'memory'), 'utf8').catch(() => '');
    return memory === '' ? undefined : readBuildId(join(directory, key));
  };
  type Hook = () => Promise<unknown>;
  const nothing: Hook = async () => {};
  /** @param meanwhile while it is made. @param looked when it has looked for another's */
  const make = (buildId: string, memory = 'pages', meanwhile = nothing, looked = nothing) =>
    makeTemplate(
      {
        templatesDirectory: root,
        key: KEY,
        find: async (directory, key) => {
          const found = await find(directory, key);
          await looked();
          return found;
        },
      },
      async (directory) => {
        await writeFile(join(directory, 'memory'), memory);
        await meanwhile();
        return { manifest: { stateSha256Hex: buildId }, files: ['memory'] };
      },
    );

  it('gets its name when it is whole; what failed leaves nothing', async () => {
    expect(await make('one')).toBe('one');
    await rm(join(root, KEY), { recursive: true });
    await expect(make('two', 'pages', () => Promise.reject(new Error('no boot')))).rejects.toThrow('no boot');
    expect(await readdir(root)).toEqual([]);
  });

  it('gives way to another daemon’s that was faster, and replaces what is damaged', async () => {
    expect(await make('slow', 'pages', () => make('fast'))).toBe('fast');
    expect(await readdir(root)).toEqual([KEY]);
    await writeFile(join(root, KEY, 'memory'), '');
    expect(await make('next')).toBe('next');
    expect(await readdir(root)).toEqual([KEY]);
  });

  it('is the same for two daemons that are ready at once', async () => {
    let other: string | undefined;
    let isFirst = true;
    const looked = async (): Promise<void> => {
      if (!isFirst) return;
      isFirst = false;
      other = await make('two');
    };
    const one = await make('one', 'pages', nothing, looked);
    // MicroVMs rest on what either was told.
    expect([one, other]).toEqual([await readBuildId(join(root, KEY)), one]);
  });

  it('that cannot be read back is no template', async () => {
    await expect(make('one', '')).rejects.toMatchObject({ code: 'boot_failed' });
  });

  it('is what a snapshot ends with when it began with it', async () => {
    await make('one');
    const directory = join(root, KEY);
    expect(await requireBuildId(directory)).toBe('one');
    await expect(requireBuildId(directory, 'another')).rejects.toMatchObject({
      code: 'snapshot_failed',
      message: expect.stringContaining('made again meanwhile'),
    });
    await expect(requireBuildId(join(root, 'other'))).rejects.toMatchObject({
      message: expect.stringContaining('not on this host'),
    });
  });
});

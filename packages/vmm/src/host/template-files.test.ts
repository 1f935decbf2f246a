/** Templates that are carried to another host, with small files in place of memory. */
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { locateTemplates, relocateTemplates } from './template-files.ts';

const KEY = '0123456789abcdef0123456789abcdef';

describe('templates that saved states rest on', () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'instavm-templates-test-'));
  });
  afterEach(() => rm(root, { recursive: true, force: true }));

  const write = async (path: string, contents: unknown): Promise<string> => {
    await mkdir(join(root, path, '..'), { recursive: true });
    await writeFile(join(root, path), JSON.stringify(contents));
    return join(root, path);
  };
  const template = async (cache: string, stateSha256Hex = 'aa'): Promise<void> => {
    const kernelPath = await write(`${cache}/images/kernel-1/vmlinuz`, 'kernel');
    await write(`${cache}/templates/${KEY}/template.json`, {
      key: KEY,
      stateSha256Hex,
      images: { kernelPath },
      more: 1,
    });
  };
  const savedState = async (name: string, templateKey: unknown): Promise<string> =>
    join(await write(`${name}/snapshot.json`, { templateKey }), '..');

  it('are found with their images, each once, and nothing outside of the cache', async () => {
    await template('cache');
    const states = [await savedState('one', KEY), await savedState('two', KEY)];
    const odd = [await savedState('three', '../../etc'), await savedState('four', 7), join(root, 'nowhere')];
    const found = await locateTemplates(join(root, 'cache'), [...states, ...odd]);
    expect(found.sort()).toEqual(['images/kernel-1', `templates/${KEY}`]);
    await write(`cache/templates/${KEY}/template.json`, {
      stateSha256Hex: 'aa',
      images: { kernelPath: '/etc/passwd' },
    });
    expect(await locateTemplates(join(root, 'cache'), states)).toEqual([`templates/${KEY}`]);
  });

  it('name the images of their new place, and keep what else they say', async () => {
    await template('cache');
    await rename(join(root, 'cache'), join(root, 'unpacked'));
    await relocateTemplates(join(root, 'unpacked'), { from: join(root, 'cache'), to: join(root, 'other') });
    const text = await readFile(join(root, 'unpacked/templates', KEY, 'template.json'), 'utf8');
    expect(JSON.parse(text)).toMatchObject({
      more: 1,
      images: { kernelPath: join(root, 'other/images/kernel-1/vmlinuz') },
    });
  });

  it('are refused where another template has their key', async () => {
    await template('unpacked', 'aa');
    await template('other', 'bb');
    const moving = relocateTemplates(join(root, 'unpacked'), { from: '/somewhere', to: join(root, 'other') });
    await expect(moving).rejects.toMatchObject({ code: 'conflict', message: expect.stringContaining(KEY) });
  });
});

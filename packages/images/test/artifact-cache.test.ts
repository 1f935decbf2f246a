import { mkdir, mkdtemp, readdir, readFile, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ArtifactCache, type ArtifactRecipe } from '../src/artifact-cache.ts';

const silent = (): void => {};
let root: string;
let cache: ArtifactCache;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'instavm-artifacts-'));
  cache = new ArtifactCache(root);
});
afterEach(() => rm(root, { recursive: true, force: true }));

/** Counts its builds and writes `text` into one file. */
function textRecipe(text: string, revision = 1): ArtifactRecipe & { builds: number } {
  const recipe = {
    kind: 'text',
    inputs: { revision },
    builds: 0,
    build: async (directory: string) => {
      recipe.builds += 1;
      await mkdir(join(directory, 'nested'));
      await writeFile(join(directory, 'nested/file.txt'), text);
    },
  };
  return recipe;
}

describe('a finished artifact', () => {
  test('is found without building it again', async () => {
    const recipe = textRecipe('hello');
    const built = await cache.ensure(recipe, silent);
    expect(await cache.ensure(recipe, silent)).toEqual(built);
    expect(recipe.builds).toBe(1);
    expect(await readFile(join(built.directory, 'nested/file.txt'), 'utf8')).toBe('hello');
  });

  test('is named by its contents, so that equal results of different recipes are one directory', async () => {
    const first = await cache.ensure(textRecipe('same', 1), silent);
    const second = await cache.ensure(textRecipe('same', 2), silent);
    expect(second).toEqual(first);
    expect(await cache.find(textRecipe('same', 1))).toEqual(first);
  });

  test('stays where it is when its recipe gives something else', async () => {
    const first = await cache.ensure(textRecipe('one', 1), silent);
    const second = await cache.ensure(textRecipe('two', 2), silent);
    expect(second.directory).not.toBe(first.directory);
    expect(await readFile(join(first.directory, 'nested/file.txt'), 'utf8')).toBe('one');
  });

  test.each([
    ['shorter', (path: string) => truncate(path, 1)],
    ['touched', (path: string) => utimes(path, 1, 1)],
    ['removed', (path: string) => rm(path)],
  ])('is built again when a file of it was %s', async (_, damage) => {
    const recipe = textRecipe('hello');
    const built = await cache.ensure(recipe, silent);
    await damage(join(built.directory, 'nested/file.txt'));
    expect(await cache.find(recipe)).toBeUndefined();
    expect(await cache.ensure(recipe, silent)).toEqual(built);
    expect(await cache.find(recipe)).toEqual(built);
    expect(await readFile(join(built.directory, 'nested/file.txt'), 'utf8')).toBe('hello');
  });
});

describe('an unfinished build', () => {
  test('leaves nothing to be found, and is redone', async () => {
    const recipe = textRecipe('hello');
    const failing: ArtifactRecipe = {
      ...recipe,
      build: async (directory) => {
        await writeFile(join(directory, 'half'), 'x');
        throw new Error('disk full');
      },
    };
    await expect(cache.ensure(failing, silent)).rejects.toThrow('disk full');
    expect(await cache.find(recipe)).toBeUndefined();
    expect(await readdir(root)).toEqual([]);
    await cache.ensure(recipe, silent);
    expect(recipe.builds).toBe(1);
  });

  test('of a process that is gone is removed by the next build; one of a living process is not', async () => {
    const dead = '.partial-text-4194305-00000000';
    const living = `.partial-text-${process.pid}-00000000`;
    await mkdir(join(root, dead));
    await mkdir(join(root, living));
    const unnamed = [
      `text@0123456789abcdef.json.4194305.00000000`,
      `text@0123456789abcdef.json.${process.pid}.00000000`,
    ];
    for (const name of unnamed) await writeFile(join(root, name), '{');
    await cache.ensure(textRecipe('hello'), silent);
    const names = await readdir(root);
    expect(names).not.toContain(dead);
    expect(names).toContain(living);
    expect(names.filter((name) => unnamed.includes(name))).toEqual(unnamed.slice(1));
  });

  test('whose files were renamed but not yet named by a manifest is taken over', async () => {
    const recipe = textRecipe('hello');
    const built = await cache.ensure(recipe, silent);
    for (const name of await readdir(root)) if (name.endsWith('.json')) await rm(join(root, name));
    expect(await cache.ensure(recipe, silent)).toEqual(built);
  });
});

test.each(['', '{"format":1', '{"format":2}', '{"directory":"../../etc"}'])(
  'a manifest that is not ours (%j) is as good as none',
  async (text) => {
    const recipe = textRecipe('hello');
    const built = await cache.ensure(recipe, silent);
    const manifest = (await readdir(root)).find((name) => name.endsWith('.json'));
    await writeFile(join(root, manifest ?? ''), text);
    expect(await cache.find(recipe)).toBeUndefined();
    expect(await cache.ensure(recipe, silent)).toEqual(built);
  },
);

test('two builds of the same artifact at once end with one result', async () => {
  const results = await Promise.all([
    cache.ensure(textRecipe('hello'), silent),
    cache.ensure(textRecipe('hello'), silent),
  ]);
  expect(results[0]).toEqual(results[1]);
  expect((await readdir(root)).filter((name) => name.startsWith('.partial'))).toEqual([]);
});

test('files with holes are told apart by their data', async () => {
  const sparse = (offset: number, revision: number): ArtifactRecipe => ({
    kind: 'sparse',
    inputs: { revision },
    build: async (directory) => {
      const path = join(directory, 'disk');
      await writeFile(path, Buffer.alloc(offset + 1, 1).subarray(offset));
      await truncate(path, 64 * 1024 * 1024);
      if (offset > 0) await writeFile(path, 'data', { flag: 'r+' });
    },
  });
  const first = await cache.ensure(sparse(0, 1), silent);
  const second = await cache.ensure(sparse(8, 2), silent);
  expect(second.digest).not.toBe(first.digest);
});

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { defaultCacheDirectory, locateGuestImages, MissingGuestImages } from '../src/index.ts';

test('missing images are an error that says what to type', async () => {
  const cacheDirectory = await mkdtemp(join(tmpdir(), 'instavm-cache-'));
  try {
    const located = locateGuestImages({ cacheDirectory, agentPath: join(cacheDirectory, 'agent') });
    await expect(located).rejects.toThrow(MissingGuestImages);
    await expect(located).rejects.toThrow("the guest's kernel is missing; run: npm run setup");
  } finally {
    await rm(cacheDirectory, { recursive: true });
  }
});

test('the cache directory follows its own variable, then the XDG one, then the home directory', () => {
  expect(defaultCacheDirectory({ INSTAVM_CACHE_DIR: '/a', XDG_CACHE_HOME: '/b' })).toBe('/a');
  expect(defaultCacheDirectory({ XDG_CACHE_HOME: '/b' })).toBe('/b/instavm');
  expect(defaultCacheDirectory({})).toMatch(/\/\.cache\/instavm$/);
});

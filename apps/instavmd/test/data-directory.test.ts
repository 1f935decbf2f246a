import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { chmod } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openDataDirectory } from '../src/data-directory.ts';

it('a data directory is its owner’s alone, also one that was made for the daemon', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'instavm-data-'));
  await chmod(directory, 0o755);
  openDataDirectory(directory).release();
  expect(statSync(directory).mode & 0o777).toBe(0o700);
  rmSync(directory, { recursive: true });
});

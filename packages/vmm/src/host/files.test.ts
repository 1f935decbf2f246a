/** Files in the place of which a VMM that a guest has taken over may have put anything. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, open, readdir, readFile, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { copySparse, tailOf } from './files.ts';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-files-'));
});
afterAll(() => rm(directory, { recursive: true, force: true }));
const at = (name: string): string => join(directory, name);

const IMPOSTORS = ['a FIFO', 'a link', 'a link to a FIFO', 'a directory', 'a device'] as const;
async function make(kind: (typeof IMPOSTORS)[number]): Promise<string> {
  const path = at(kind.replaceAll(' ', '-'));
  await rm(path, { recursive: true, force: true });
  if (kind === 'a FIFO') execFileSync('mkfifo', [path]);
  else if (kind === 'a link') await symlink(import.meta.filename, path);
  else if (kind === 'a link to a FIFO') await symlink(await make('a FIFO'), path);
  else if (kind === 'a directory') execFileSync('mkdir', [path]);
  else await symlink('/dev/zero', path);
  return path;
}

describe('a copy of what a VMM had', () => {
  it('has the same bytes and holes', async () => {
    const file = await open(at('sparse'), 'w');
    await file.write('begin', 0);
    await file.write('end', 64 * 1024 * 1024);
    await file.close();
    await copySparse(at('sparse'), at('copy'));
    const [one, other] = [await stat(at('sparse')), await stat(at('copy'))];
    expect(other.size).toBe(one.size);
    expect(other.blocks).toBeLessThan(1024);
    expect((await readFile(at('copy'))).equals(await readFile(at('sparse')))).toBe(true);
  });

  it.each(IMPOSTORS)('is refused at once where there is %s, and nothing is made', async (kind) => {
    await expect(copySparse(await make(kind), at('made'))).rejects.toThrow('something else than a file');
    expect(await readdir(directory)).not.toContain('made');
  });

  it('says what is the matter when it cannot be made', async () => {
    await expect(copySparse(at('sparse'), at('nowhere/copy'))).rejects.toThrow(/nowhere\/copy.*No such file/s);
    await expect(copySparse(at('missing'), at('copy'))).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

describe('the end of what a VMM wrote', () => {
  it('is read alone, however long it was made', async () => {
    await writeFile(at('log'), 'x'.repeat(100_000));
    await truncate(at('log'), 1024 ** 4);
    const before = process.memoryUsage.rss();
    expect(await tailOf(at('log'), 8192)).toBe('\0'.repeat(8192));
    expect(process.memoryUsage.rss() - before).toBeLessThan(64 * 1024 * 1024);
    await writeFile(at('log'), 'short');
    expect(await tailOf(at('log'), 8192)).toBe('short');
  });

  it.each(IMPOSTORS)('is nothing where there is %s', async (kind) => {
    expect(await tailOf(await make(kind), 8192)).toBe('');
  });

  it('is nothing where nothing is', async () => {
    expect(await tailOf(at('missing'), 8192)).toBe('');
  });
});

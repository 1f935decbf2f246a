/** A filesystem that is soon full. */
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export type SmallDisk = { readonly path: string; remove(): Promise<void> };

/** @returns undefined where this process may not mount */
export async function smallDisk(mib: number): Promise<SmallDisk | undefined> {
  const path = await mkdtemp(join(tmpdir(), 'instavm-full-'));
  const mounted = await run('mount', ['-t', 'tmpfs', '-o', `size=${mib}m`, 'none', path]).then(
    () => true,
    () => false,
  );
  const remove = async (): Promise<void> => {
    if (mounted) await run('umount', [path]);
    await rm(path, { recursive: true, force: true });
  };
  if (mounted) return { path, remove };
  await remove();
  return undefined;
}

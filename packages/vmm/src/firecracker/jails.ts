/** All jails of a daemon: which there are, and the end of those that nobody holds. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Cgroup, removeIfEmpty } from './cgroup.ts';
import { type JailSite, jailsDirectory } from './jail.ts';

export const jailNames = (site: JailSite): Promise<string[]> => readdir(jailsDirectory(site)).catch(() => []);

/**
 * Ends what runs in jails that nobody holds, and removes them, whole or not.
 * @param directory of jails
 * @returns how many
 */
export async function reapJails(directory: string, parentCgroup: string, owned: ReadonlySet<string>): Promise<number> {
  const names = (await readdir(directory).catch(() => [])).filter((name) => !owned.has(name));
  for (const name of names) {
    await new Cgroup(parentCgroup, name).end();
    await rm(join(directory, name), { recursive: true, force: true });
  }
  return names.length;
}

/** Those of every executable, for a daemon that does not use Firecracker. @returns how many */
export async function reapAllJails(baseDirectory: string, parentCgroup: string): Promise<number> {
  let reaped = 0;
  for (const executable of await readdir(baseDirectory).catch(() => []))
    reaped += await reapJails(join(baseDirectory, executable), parentCgroup, new Set());
  if (reaped > 0) removeIfEmpty(parentCgroup);
  return reaped;
}

/** Debian packages from which the nested machine has files; they are not installed on this host. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { runCommand } from '@instavm/images';

/** @returns paths of the packages, without what they depend on */
export async function downloadPackages(
  packages: readonly string[],
  directory: string,
  signal: AbortSignal | undefined,
): Promise<string[]> {
  const unsandboxed = process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
  await runCommand('apt-get', [...unsandboxed, 'download', ...packages], {
    cwd: directory,
    ...(signal === undefined ? {} : { signal }),
  });
  const archives = (await readdir(directory)).filter((name) => name.endsWith('.deb'));
  if (archives.length !== packages.length) throw new Error(`apt-get download left ${archives.length} packages`);
  return archives.map((name) => join(directory, name));
}

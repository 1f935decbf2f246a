/** systemd for the machine that stands for a KVM host: a disk whose files lie over the base image, which has none. */
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ArtifactCache, type ArtifactRecipe, runCommand, sha256OfFile } from '@instavm/images';
import { downloadPackages } from './download-packages.ts';

/** With the libraries that the base image does not have already. */
// biome-ignore format: one group a line
const PACKAGES: readonly string[] = [
  'systemd', 'libsystemd0', 'libsystemd-shared',
  'libapparmor1', 'libargon2-1', 'libcryptsetup12', 'libdevmapper1.02.1', 'libfdisk1', 'libip4tc2', 'libjson-c5', 'libkmod2',
];
const UNITS = join(import.meta.dirname, 'level-1/units');
/** As in the base image; a package's files go to where they lead. */
const LINKS = ['bin', 'lib', 'sbin'];

export async function systemdDisk(cache: ArtifactCache, progress: (message: string) => void): Promise<string> {
  const units = await readdir(UNITS);
  const recipe: ArtifactRecipe = {
    kind: 'nested-systemd',
    inputs: {
      revision: 1,
      packages: PACKAGES,
      units: await Promise.all(units.map(async (name) => `${name} ${await sha256OfFile(join(UNITS, name))}`)),
    },
    async build(directory, say, signal) {
      say('downloading systemd for the nested tests');
      const scratch = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
      try {
        const debs = await downloadPackages(PACKAGES, scratch, signal);
        const tree = join(scratch, 'tree');
        for (const name of LINKS) {
          await mkdir(join(tree, 'usr', name), { recursive: true });
          await symlink(`usr/${name}`, join(tree, name));
        }
        const unpack =
          'dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink --exclude=./usr/share/doc';
        for (const deb of debs)
          await runCommand('bash', ['-o', 'pipefail', '-c', unpack, 'bash', deb, tree], { signal });
        for (const name of units) await cp(join(UNITS, name), join(tree, 'etc/systemd/system', name));
        // Fixed, and so nothing that every boot has to settle.
        await writeFile(join(tree, 'etc/machine-id'), 'c0ffee00c0ffee00c0ffee00c0ffee00\n');
        await writeFile(join(tree, 'etc/hostname'), 'level-1\n');
        await runCommand('mkfs.erofs', ['--quiet', '--all-root', join(directory, 'systemd.erofs'), tree], { signal });
      } finally {
        await rm(scratch, { recursive: true, force: true });
      }
    },
  };
  return join((await cache.ensure(recipe, progress)).directory, 'systemd.erofs');
}

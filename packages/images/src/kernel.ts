/**
 * Debian's cloud kernel, downloaded with apt (which checks its signature) and unpacked, never installed. The artifact holds `vmlinuz`,
 * `modules/*.ko` and `modules.load`, the modules' file names in load order.
 */
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import type { ArtifactRecipe, Progress } from './artifact-cache.ts';
import { runCommand } from './command.ts';
import { GUEST_MODULES, moduleLoadOrder } from './kernel-modules.ts';

const KERNEL_METAPACKAGE = 'linux-image-cloud-amd64';

/** The guest's kernel. */
export const kernelRecipe: ArtifactRecipe = kernelWithModules(GUEST_MODULES);

/** @param wanted names of modules; what they need comes with them */
export function kernelWithModules(wanted: readonly string[]): ArtifactRecipe {
  return {
    kind: 'kernel',
    inputs: { revision: 1, metapackage: KERNEL_METAPACKAGE, modules: wanted },
    build: (directory, progress, signal) => unpackKernel(wanted, directory, progress, signal),
  };
}

async function unpackKernel(
  wanted: readonly string[],
  directory: string,
  progress: Progress,
  signal?: AbortSignal,
): Promise<void> {
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-kernel-'));
  try {
    const packageName = await resolveKernelPackage(signal);
    progress(`downloading ${packageName}`);
    await runCommand('apt-get', [...unsandboxedWhenRoot(), 'download', packageName], { cwd: scratch, signal });
    const archive = (await readdir(scratch)).find((name) => name.endsWith('.deb'));
    if (!archive) throw new Error(`apt-get download ${packageName} left no package`);

    progress('unpacking the kernel');
    const tree = join(scratch, 'tree');
    await runCommand('dpkg-deb', ['-x', join(scratch, archive), tree], { signal });
    const version = packageName.slice('linux-image-'.length);
    await rename(join(tree, 'boot', `vmlinuz-${version}`), join(scratch, 'vmlinuz'));
    await copyFile(join(scratch, 'vmlinuz'), join(directory, 'vmlinuz'));
    await runCommand('depmod', ['-b', tree, version], { signal });

    const modules = join(tree, 'lib/modules', version);
    const order = moduleLoadOrder(await readFile(join(modules, 'modules.dep'), 'utf8'), wanted);
    await mkdir(join(directory, 'modules'));
    for (const path of order) await copyFile(join(modules, path), join(directory, 'modules', basename(path)));
    await writeFile(join(directory, 'modules.load'), order.map((path) => `${basename(path)}\n`).join(''));
  } finally {
    await rm(scratch, { recursive: true, force: true });
  }
}

/** The metapackage depends on the newest kernel of the release; that one is what apt is asked for. */
async function resolveKernelPackage(signal?: AbortSignal): Promise<string> {
  const depends = await runCommand('apt-cache', ['depends', KERNEL_METAPACKAGE], { signal }).catch((cause: unknown) => {
    throw new Error(`apt does not know ${KERNEL_METAPACKAGE}; run: sudo apt-get update`, { cause });
  });
  const found = /Depends: (linux-image-\d[^\s]*-cloud-amd64)$/m.exec(depends)?.[1];
  if (!found) throw new Error(`apt names no kernel behind ${KERNEL_METAPACKAGE}; run: sudo apt-get update`);
  return found;
}

/** As root apt would download as `_apt`, which may not enter our temporary directory, and warn about it. */
function unsandboxedWhenRoot(): string[] {
  return process.getuid?.() === 0 ? ['-o', 'APT::Sandbox::User=root'] : [];
}

/** The first level's initramfs: busybox, the kernel modules of a host that runs KVM, and a script that mounts its disks. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  type Artifact,
  type ArtifactRecipe,
  type CpioEntry,
  cpioArchive,
  kernelWithModules,
  runCommand,
  sha256OfFile,
} from '@instavm/images';
import { downloadPackages } from './download-packages.ts';

export const HOST_KERNEL = kernelWithModules([
  'virtio_pci',
  'virtio_blk',
  'virtio_console',
  'virtio-rng',
  'erofs',
  'overlay',
  'loop',
  'tun',
  'kvm-amd',
]);

const INIT = join(import.meta.dirname, 'level-1/initramfs-init.sh');
const DIRECTORIES = ['bin', 'dev', 'proc', 'sys', 'lib', 'var', 'lower', 'systemd', 'modules', 'sources', 'sysroot'];

export async function hostInitramfs(kernel: Artifact): Promise<ArtifactRecipe> {
  return {
    kind: 'nested-initramfs',
    inputs: { revision: 1, kernel: kernel.digest, init: await sha256OfFile(INIT) },
    async build(directory, progress, signal) {
      const scratch = await mkdtemp(join(tmpdir(), 'instavm-nested-'));
      try {
        progress('downloading busybox-static for the nested tests');
        const [archive = ''] = await downloadPackages(['busybox-static'], scratch, signal);
        await runCommand('dpkg-deb', ['-x', archive, join(scratch, 'tree')], { signal });
        const busybox = await readFile(join(scratch, 'tree/bin/busybox'));
        await writeFile(join(directory, 'initramfs.cpio'), cpioArchive(await entries(kernel.directory, busybox)));
      } finally {
        await rm(scratch, { recursive: true, force: true });
      }
    },
  };
}

async function entries(kernelDirectory: string, busybox: Buffer): Promise<CpioEntry[]> {
  const names = (await readFile(join(kernelDirectory, 'modules.load'), 'utf8')).trim().split('\n');
  const files: CpioEntry[] = [
    { type: 'file', path: 'bin/busybox', mode: 0o755, data: busybox },
    { type: 'file', path: 'init', mode: 0o755, data: await readFile(INIT) },
    { type: 'file', path: 'modules.load', mode: 0o644, data: Buffer.from(`${names.join('\n')}\n`) },
  ];
  for (const name of names) {
    const data = await readFile(join(kernelDirectory, 'modules', name));
    files.push({ type: 'file', path: `lib/${name}`, mode: 0o644, data });
  }
  return [
    ...DIRECTORIES.map((path): CpioEntry => ({ type: 'directory', path, mode: 0o755 })),
    { type: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    ...files,
  ];
}

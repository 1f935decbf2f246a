/**
 * The initramfs: the guest agent as `/init`, the kernel modules below `/lib/modules`, and `/modules.load`, which
 * lists their paths in load order, one a line. Uncompressed, because the guest unpacks it, perhaps under emulation.
 */
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Artifact, type ArtifactRecipe, sha256OfFile } from './artifact-cache.ts';
import { type CpioEntry, cpioArchive } from './cpio.ts';

const DIRECTORIES = ['dev', 'proc', 'sys', 'lib', 'lib/modules'];

/** @throws Error with code ENOENT when there is no agent binary at `agentPath` */
export async function initramfsRecipe(kernel: Artifact, agentPath: string): Promise<ArtifactRecipe> {
  return {
    kind: 'initramfs',
    inputs: { revision: 2, kernel: kernel.digest, agent: await sha256OfFile(agentPath) },
    async build(directory, progress) {
      progress('packing the initramfs');
      await writeFile(join(directory, 'initramfs.cpio'), cpioArchive(await entries(kernel.directory, agentPath)));
    },
  };
}

async function entries(kernelDirectory: string, agentPath: string): Promise<CpioEntry[]> {
  const names = (await readFile(join(kernelDirectory, 'modules.load'), 'utf8')).trim().split('\n');
  const modules: CpioEntry[] = [];
  for (const name of names) {
    const data = await readFile(join(kernelDirectory, 'modules', name));
    modules.push({ type: 'file', path: `lib/modules/${name}`, mode: 0o644, data });
  }
  return [
    ...DIRECTORIES.map((path): CpioEntry => ({ type: 'directory', path, mode: 0o755 })),
    // The kernel opens it for /init's standard streams before anything is mounted.
    { type: 'character-device', path: 'dev/console', mode: 0o600, major: 5, minor: 1 },
    { type: 'file', path: 'init', mode: 0o755, data: await readFile(agentPath) },
    {
      type: 'file',
      path: 'modules.load',
      mode: 0o644,
      data: Buffer.from(names.map((n) => `/lib/modules/${n}\n`).join('')),
    },
    ...modules,
  ];
}

/** The backend for its tests. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestImages, Template, Vmm } from '@instavm/core';
import {
  type Confinement,
  createQemuVmm,
  type DiskLimits,
  probeConfinement,
  probeKvm,
  qemuVersion,
  UNLIMITED,
} from '../index.ts';

export { shell } from '../../test/shell.ts';

export const SIZE = { memoryMib: 512, vcpus: 2 };
export const UIDS = { first: 1_900_030_000, count: 64 };
export const PARENT_CGROUP = 'instavm-test-qemu';

export type Backend = {
  readonly vmm: Vmm;
  readonly images: GuestImages;
  readonly confinement: Confinement;
  readonly runDirectory: string;
  /** For snapshots. */
  readonly scratch: string;
  /** The same daemon's directories, seen by its next start, perhaps with other limits or another QEMU. */
  again(other?: { readonly disk?: DiskLimits; readonly binary?: string }): Vmm;
  template(): Promise<Template>;
  /** Run directories and cgroups that are still there. */
  leftovers(): Promise<string[]>;
  close(): Promise<void>;
};

/**
 * @param size of the templates
 * @param ownTemplates where they are, for a test that removes them; otherwise all tests share them
 */
export async function makeBackend(size = SIZE, ownTemplates?: string): Promise<Backend> {
  // Setup leaves the images where it says; the tests take what they are told, because this package may not import the one that builds them.
  const images = JSON.parse(process.env.INSTAVM_TEST_IMAGES ?? 'null') as GuestImages | null;
  const cacheDirectory = process.env.INSTAVM_TEST_CACHE_DIR ?? '';
  if (images === null) throw new Error('INSTAVM_TEST_IMAGES is not set; run: npm test');
  const accelerator = (await probeKvm(images, cacheDirectory, () => {})).usable ? 'kvm' : 'tcg';
  const usesKvm = accelerator === 'kvm';
  const confinement = await probeConfinement({ uids: UIDS, parentCgroup: PARENT_CGROUP, usesKvm });
  const [runDirectory = '', scratch = ''] = await Promise.all(
    [1, 2].map(() => mkdtemp(join(tmpdir(), 'instavm-vmm-'))),
  );
  const templatesDirectory = ownTemplates ?? join(cacheDirectory, 'templates');
  const version = await qemuVersion();
  const again: Backend['again'] = (other) =>
    createQemuVmm({ templatesDirectory, runDirectory, accelerator, version, confinement, disk: UNLIMITED, ...other });
  const vmm = again();
  return {
    ...{ vmm, images, confinement, runDirectory, scratch, again },
    template: async () =>
      (await vmm.findTemplate(vmm.templateKey(images, size))) ?? (await vmm.buildTemplate(images, size, () => {})),
    leftovers: async () => {
      const groups = await readdir(join('/sys/fs/cgroup', PARENT_CGROUP), { withFileTypes: true }).catch(() => []);
      const names = groups.filter((entry) => entry.isDirectory()).map(({ name }) => name);
      return [...(await readdir(runDirectory)), ...names];
    },
    close: async () => {
      for (const directory of [runDirectory, scratch]) await rm(directory, { recursive: true, force: true });
    },
  };
}

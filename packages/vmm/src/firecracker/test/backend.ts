/** The backend for the nested tests, and what a guest and its jail show. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestImages, Template, Vmm, VmmCounts } from '@instavm/core';
import { createFirecrackerVmm, type FirecrackerBinaries, firecrackerVersion } from '../index.ts';
import { UNLIMITED } from '../machine.ts';

export { shell } from '../../test/shell.ts';

export const SIZE = { memoryMib: 512, vcpus: 1 };
export const UIDS = { first: 300_000, count: 64 };
export const PARENT_CGROUP = 'instavm-test';

export type Backend = {
  readonly vmm: Vmm;
  readonly images: GuestImages;
  readonly runDirectory: string;
  readonly scratch: string;
  readonly binaries: FirecrackerBinaries;
  readonly version: string;
  /** The same daemon's directories, seen by its next start, perhaps with another Firecracker. */
  again(version?: string, binaries?: FirecrackerBinaries): Promise<Vmm>;
  /** What its Firecrackers have counted, each in turn. */
  readonly counts: VmmCounts[];
  template(): Promise<Template>;
  /** Jails and cgroups that are still there. */
  leftovers(): Promise<string[]>;
  close(): Promise<void>;
};

export async function makeBackend(disk = UNLIMITED): Promise<Backend> {
  const images = JSON.parse(process.env.INSTAVM_TEST_IMAGES ?? 'null') as GuestImages | null;
  const { FIRECRACKER_BIN, JAILER_BIN, INSTAVM_TEST_CACHE_DIR = '' } = process.env;
  if (images === null || !FIRECRACKER_BIN || !JAILER_BIN)
    throw new Error('INSTAVM_TEST_IMAGES, FIRECRACKER_BIN and JAILER_BIN are not set; run: npm test');
  const binaries = { firecracker: FIRECRACKER_BIN, jailer: JAILER_BIN };
  const version = await firecrackerVersion(binaries);
  const runDirectory = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
  const templatesDirectory = join(INSTAVM_TEST_CACHE_DIR, 'templates');
  const counts: VmmCounts[] = [];
  const make = (made: string, by: FirecrackerBinaries): Vmm =>
    createFirecrackerVmm({
      templatesDirectory,
      runDirectory,
      binaries: by,
      version: made,
      uids: UIDS,
      parentCgroup: PARENT_CGROUP,
      disk,
      observer: (_vmm, counted) => counts.push(counted),
    });
  const vmm = make(version, binaries);
  return {
    vmm,
    images,
    runDirectory,
    scratch,
    binaries,
    version,
    counts,
    again: async (other = version, by = binaries) => make(other, by),
    template: async () =>
      (await vmm.findTemplate(vmm.templateKey(images, SIZE))) ?? (await vmm.buildTemplate(images, SIZE, () => {})),
    leftovers: async () => {
      const groups = await readdir(join('/sys/fs/cgroup', PARENT_CGROUP), { withFileTypes: true }).catch(() => []);
      const executables = await readdir(runDirectory);
      const jails = await Promise.all(executables.map((name) => readdir(join(runDirectory, name))));
      return [...jails.flat(), ...groups.filter((entry) => entry.isDirectory()).map(({ name }) => name)];
    },
    close: async () => {
      for (const directory of [runDirectory, scratch]) await rm(directory, { recursive: true, force: true });
    },
  };
}

/** The Firecracker backend on the real Firecracker and jailer. Runs in the machine that scripts/nested makes, or as root on a KVM host. */
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { GuestImages } from '@instavm/core';
import { describeVmmContract } from '../contract/suite.ts';
import { createFirecrackerVmm, firecrackerVersion } from './index.ts';

const images = JSON.parse(process.env.INSTAVM_TEST_IMAGES ?? 'null') as GuestImages | null;
const cacheDirectory = process.env.INSTAVM_TEST_CACHE_DIR ?? '';
const binaries = { firecracker: process.env.FIRECRACKER_BIN ?? '', jailer: process.env.JAILER_BIN ?? '' };

const SIZE = { memoryMib: 512, vcpus: 1 };
const PARENT_CGROUP = 'instavm-test';

const entries = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);

describeVmmContract('the Firecracker backend', async () => {
  if (images === null) throw new Error('INSTAVM_TEST_IMAGES is not set; run: npm test');
  const runDirectory = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
  const vmm = createFirecrackerVmm({
    templatesDirectory: join(cacheDirectory, 'templates'),
    runDirectory,
    binaries,
    version: await firecrackerVersion(binaries),
    uids: { first: 300_000, count: 64 },
    parentCgroup: PARENT_CGROUP,
  });
  return {
    vmm,
    images,
    size: SIZE,
    scratch,
    leftovers: async () => {
      const groups = await readdir(join('/sys/fs/cgroup', PARENT_CGROUP), { withFileTypes: true });
      const jails = await entries(join(runDirectory, 'firecracker'));
      return [...jails, ...groups.filter((entry) => entry.isDirectory()).map(({ name }) => name)];
    },
    close: async () => {
      for (const directory of [runDirectory, scratch]) await rm(directory, { recursive: true, force: true });
    },
  };
});

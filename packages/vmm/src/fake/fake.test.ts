import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeVmmContract } from '../contract/suite.ts';
import { createFakeVmm, fakeImages } from './index.ts';

describeVmmContract('the fake backend', async () => {
  const scratch = await mkdtemp(join(tmpdir(), 'instavm-vmm-'));
  return {
    vmm: createFakeVmm(),
    images: fakeImages,
    size: { memoryMib: 256, vcpus: 1 },
    scratch,
    leftovers: async () => [],
    close: () => rm(scratch, { recursive: true, force: true }),
  };
});

import { describeVmmContract } from '../contract/suite.ts';
import { createFakeVmm, fakeImages } from './index.ts';

describeVmmContract('the fake backend', async () => ({
  vmm: createFakeVmm(),
  images: fakeImages,
  size: { memoryMib: 256, vcpus: 1 },
  leftovers: async () => [],
  close: async () => {},
}));

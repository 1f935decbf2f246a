import { expect, test } from 'vitest';
import { moduleLoadOrder } from '../src/kernel-modules.ts';

const MODULES_DEP = `kernel/virtio/virtio.ko: kernel/virtio/virtio_ring.ko
kernel/virtio/virtio_ring.ko:
kernel/block/virtio_blk.ko: kernel/virtio/virtio.ko kernel/virtio/virtio_ring.ko
kernel/hw_random/virtio-rng.ko: kernel/virtio/virtio_ring.ko kernel/virtio/virtio.ko
kernel/fs/unwanted.ko: kernel/virtio/virtio.ko
`;

test('every module comes after all that it needs, once, and nothing else is loaded', () => {
  expect(moduleLoadOrder(MODULES_DEP, ['virtio_blk', 'virtio-rng'])).toEqual([
    'kernel/virtio/virtio_ring.ko',
    'kernel/virtio/virtio.ko',
    'kernel/block/virtio_blk.ko',
    'kernel/hw_random/virtio-rng.ko',
  ]);
});

test('a dash and an underscore in a name mean the same', () => {
  expect(moduleLoadOrder(MODULES_DEP, ['virtio_rng'])).toEqual(moduleLoadOrder(MODULES_DEP, ['virtio-rng']));
});

test('a module that the kernel lacks is named', () => {
  expect(() => moduleLoadOrder(MODULES_DEP, ['virtio_blk', 'erofs'])).toThrow('no module erofs');
});

test('a cycle is an error, not an endless loop', () => {
  expect(() => moduleLoadOrder('a.ko: b.ko\nb.ko: a.ko\n', ['a'])).toThrow('cycle');
});

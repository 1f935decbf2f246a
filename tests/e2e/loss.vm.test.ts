/** Losses over QEMU: what is told of Firecracker in tests/nested. */
import { type SmallDisk, smallDisk } from '@instavm/testing';
import { afterAll, beforeAll } from 'vitest';
import { describeLosses } from '../life/loss.ts';
import { qemu } from '../life/qemu.ts';

let disk: SmallDisk | undefined;
beforeAll(async () => {
  disk = await smallDisk(1024);
});
afterAll(() => disk?.remove());

describeLosses(qemu, {
  fillable: () =>
    disk === undefined ? { why: 'this process may not mount a small filesystem' } : { place: disk.path },
  muchMib: 160,
});

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { newIncarnationId, type Vmm } from '@instavm/core';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { createFirecrackerVmm } from '../firecracker/index.ts';
import { createQemuVmm, PRIVILEGES_ONLY, UNLIMITED } from '../qemu/index.ts';

const COMMON = { templateKey: 'k', memoryMib: 512, vcpus: 2, stateSha256Hex: '00', overlayBytes: 0 };
const MANIFESTS = {
  qemu: { ...COMMON, accelerator: 'tcg', stateBytes: 1, overlayStoredBytes: 1 },
  firecracker: { ...COMMON, backend: 'firecracker', memoryBytes: 1, storedBytes: 1 },
};

let directory: string;
let backends: Record<'qemu' | 'firecracker', Vmm>;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-foreign-'));
  const site = { templatesDirectory: join(directory, 'templates'), runDirectory: join(directory, 'run') };
  backends = {
    qemu: createQemuVmm({
      ...site,
      accelerator: 'tcg',
      version: 'QEMU 7',
      confinement: PRIVILEGES_ONLY,
      disk: UNLIMITED,
    }),
    firecracker: createFirecrackerVmm({
      ...site,
      binaries: { firecracker: '/nonexistent/firecracker', jailer: '/nonexistent/jailer' },
      version: '1.12.1',
      uids: { first: 1_900_000_000, count: 1 },
      parentCgroup: 'instavm-none',
      disk: { bytesPerSecond: Infinity, operationsPerSecond: Infinity },
    }),
  };
});
afterAll(() => rm(directory, { recursive: true, force: true }));

describe('a snapshot', () => {
  it.each([
    ['qemu', 'firecracker', /^the snapshot was made by qemu, and this daemon runs Firecracker 1\.12\.1 on /],
    ['firecracker', 'qemu', /^the snapshot was made by firecracker \(kvm\), and this daemon runs QEMU 7 \(tcg\)$/],
  ] as const)('of %s is found by %s, which refuses to restore it and says why', async (maker, other, why) => {
    await writeFile(join(directory, 'snapshot.json'), JSON.stringify(MANIFESTS[maker]));
    const found = await backends[other].findSnapshot(directory);
    expect(found).toMatchObject({ backend: maker, size: { memoryMib: 512, vcpus: 2 } });
    if (found === undefined) return;
    const refused = backends[other].restore(found, newIncarnationId());
    await expect(refused).rejects.toMatchObject({ code: 'snapshot_incompatible', message: expect.stringMatching(why) });
  });

  it('that is damaged is nobody else’s', async () => {
    for (const [maker, vmm] of Object.entries(backends)) {
      await writeFile(
        join(directory, 'snapshot.json'),
        JSON.stringify({ ...MANIFESTS[maker as 'qemu'], memoryMib: 'much' }),
      );
      expect(await vmm.findSnapshot(directory)).toBeUndefined();
    }
  });
});

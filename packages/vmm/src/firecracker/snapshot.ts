/** Snapshots on disk: memory, device state and overlay of one microVM. Made beside and renamed; found only when complete and intact. */
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Template, TemplateKey, VmSnapshot } from '@instavm/core';
import { z } from 'zod';
import { snapshotFailure } from '../host/failure.ts';
import { flush, sha256Hex, sizeOf } from '../host/files.ts';
import { foreignSnapshot } from '../host/foreign-snapshot.ts';
import { parseJson } from '../host/parse-json.ts';
import { makePartialSnapshot } from '../host/partial-snapshots.ts';
import { KeyText, requireBuildId } from '../host/template-build.ts';
import { FirecrackerUnreachable } from './api.ts';
import { FILES } from './machine.ts';
import { keepDelta, memoryBytesOf, prepareMemory } from './memory.ts';
import type { FirecrackerProcess } from './process.ts';

const MANIFEST = 'snapshot.json';
const BLOCK_BYTES = 512;

const Manifest = z.object({
  backend: z.literal('firecracker'),
  templateKey: KeyText,
  /** Whose pages it does without; the first ones do not say. */
  templateBuildId: z.string().optional(),
  memoryMib: z.number().int().positive(),
  vcpus: z.number().int().positive(),
  stateSha256Hex: z.string(),
  memorySha256Hex: z.string(),
  overlayBytes: z.number().int(),
  /** What the files, which are sparse, occupy. */
  storedBytes: z.number().int(),
});
type Manifest = z.infer<typeof Manifest>;

/** @returns undefined when it is missing, incomplete, or not what its manifest says; another backend's as it says itself */
export async function findSnapshot(directory: string): Promise<VmSnapshot | undefined> {
  const text = await readFile(join(directory, MANIFEST), 'utf8').catch(() => '');
  const manifest = parseJson(Manifest, text);
  if (manifest === undefined) return foreignSnapshot(text, 'firecracker', directory);
  if ((await sizeOf(join(directory, FILES.overlay))) !== manifest.overlayBytes) return undefined;
  const digests = { [FILES.deviceState]: manifest.stateSha256Hex, [FILES.memoryDelta]: manifest.memorySha256Hex };
  for (const [file, expected] of Object.entries(digests)) {
    const found = await sha256Hex(join(directory, file)).catch(() => undefined);
    if (found !== expected) return undefined;
  }
  return viewOf(directory, manifest);
}

function viewOf(directory: string, manifest: Manifest): VmSnapshot {
  const { templateKey, templateBuildId, memoryMib, vcpus, storedBytes } = manifest;
  return {
    directory,
    templateKey: templateKey as TemplateKey,
    templateBuildId,
    size: { memoryMib, vcpus },
    backend: 'firecracker',
    accelerator: 'kvm',
    storedBytes,
  };
}

export type SnapshotOptions = {
  /** `end`: the VMM is gone afterwards. `continue`: the vCPUs run on, and the streams have ended. */
  readonly then: 'continue' | 'end';
  /** Of the filesystem on which jails and snapshots are. */
  readonly holesAreKept: () => Promise<boolean>;
};

/**
 * Pauses the vCPUs and stores memory, device state and disk.
 * @throws snapshot_failed, capacity_unavailable; the vCPUs then run on, or the VMM has ended
 */
export async function takeSnapshot(
  vmm: FirecrackerProcess,
  { size, directory: templateDirectory }: Pick<Template, 'size' | 'directory'>,
  directory: string,
  { then, holesAreKept }: SnapshotOptions,
): Promise<VmSnapshot> {
  const { api, jail } = vmm;
  const templateBuildId = await requireBuildId(templateDirectory);
  const parent = dirname(directory);
  const partial = await makePartialSnapshot(parent);
  const memoryBytes = memoryBytesOf(size);
  let [isAsked, isHeld] = [false, false];
  try {
    const keepsHoles = await holesAreKept();
    // What was written to since another building says nothing of this one, which all of the memory is compared with then.
    if (jail.record.templateBuildId !== templateBuildId) await jail.forgetMemoryBase();
    const type = await prepareMemory(jail, memoryBytes);
    await jail.makeFile(FILES.deviceState, 0);
    isAsked = true;
    await api.setState('Paused');
    isHeld = true;
    const files = { snapshot_path: FILES.deviceState, mem_file_path: FILES.memory };
    // Whatever comes of it: what was counted so far is counted no more.
    await jail.forgetMemoryBase();
    await api.put('/snapshot/create', { snapshot_type: type, ...files });
    await jail.copyOut(FILES.overlay, join(partial, FILES.overlay));
    if (then === 'continue') await api.setState('Resumed');
    // Now, that whoever opens them again finds a guest that answers.
    vmm.dropStreams();
    const delta = join(partial, FILES.memoryDelta);
    const templateMemory = join(templateDirectory, FILES.memory);
    const memorySha256Hex = await keepDelta(jail, delta, { type, memoryBytes, templateMemory, keepsHoles });
    await requireBuildId(templateDirectory, templateBuildId);
    await jail.copyStateOut(join(partial, FILES.deviceState));
    await jail.remove(FILES.deviceState);
    const stats = await Promise.all(
      [FILES.memoryDelta, FILES.overlay, FILES.deviceState].map((file) => stat(join(partial, file))),
    );
    const manifest: Manifest = {
      backend: 'firecracker',
      templateKey: jail.record.templateKey,
      templateBuildId,
      memoryMib: size.memoryMib,
      vcpus: size.vcpus,
      stateSha256Hex: await sha256Hex(join(partial, FILES.deviceState)),
      memorySha256Hex,
      overlayBytes: stats[1]?.size ?? 0,
      storedBytes: stats.reduce((total, { blocks }) => total + blocks * BLOCK_BYTES, 0),
    };
    await writeFile(join(partial, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
    for (const file of [FILES.memoryDelta, FILES.overlay, FILES.deviceState, MANIFEST])
      await flush(join(partial, file));
    await flush(partial);
    // Before the snapshot has its name, under which it may be deleted.
    if (then === 'continue') await jail.setMemoryBase(delta);
    await rename(partial, directory);
    await flush(parent);
    // All of it is kept by now. What does not end stands still, and whoever releases the microVM is told.
    if (then === 'end') await vmm.kill().catch(() => {});
    return viewOf(directory, manifest);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    for (const file of [FILES.memory, FILES.deviceState]) await jail.remove(file);
    // Of one that was not asked yet, or could not be, the guest noticed nothing.
    if (isHeld || (isAsked && !(error instanceof FirecrackerUnreachable))) await goOn(vmm);
    throw snapshotFailure(error);
  }
}

/** One that does not say that it goes on may stand still for ever, so it is ended: `exited` tells. */
async function goOn(vmm: FirecrackerProcess): Promise<void> {
  await vmm.api.setState('Resumed').catch(async () => {
    await vmm.jail.cgroup.end();
    await vmm.exited;
  });
  vmm.dropStreams();
}

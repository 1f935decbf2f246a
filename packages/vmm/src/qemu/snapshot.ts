/**
 * Snapshots on disk: what a microVM has that its template has not. Made beside and renamed; found only when complete and intact.
 */
import { readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import type { TemplateKey, VmSnapshot } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { snapshotFailure } from '../host/failure.ts';
import { contentOf, copySparse, flush, sha256Hex, sizeOf } from '../host/files.ts';
import { foreignSnapshot } from '../host/foreign-snapshot.ts';
import { parseJson } from '../host/parse-json.ts';
import { makePartialSnapshot } from '../host/partial-snapshots.ts';
import { KeyText, requireBuildId } from '../host/template-build.ts';
import { FILES } from './arguments.ts';
import type { QemuProcess } from './process.ts';
import { QmpClient } from './qmp.ts';
import type { StoreMessage, StoreRequest } from './snapshot-worker.ts';
import type { QemuTemplate } from './template.ts';

const MANIFEST = 'snapshot.json';
const SOCKET_DEADLINE_MS = 20_000;
/** It has listened since it was started. */
const MONITOR_DEADLINE_MS = 2_000;
/** For the whole memory of the largest machine, on a busy disk. */
const STORE_DEADLINE_MS = 300_000;
/** They have some 20 KiB. */
const MAX_DEVICES_BYTES = 16 * 1024 * 1024;

const Manifest = z.object({
  templateKey: KeyText,
  /** Whose pages it was compared with; the first ones do not say. */
  templateBuildId: z.string().optional(),
  memoryMib: z.number().int().positive(),
  vcpus: z.number().int().positive(),
  accelerator: z.enum(['kvm', 'tcg']),
  stateBytes: z.number().int(),
  stateSha256Hex: z.string(),
  /** What the sparse overlay occupies. */
  overlayStoredBytes: z.number().int(),
  overlayBytes: z.number().int(),
});
type Manifest = z.infer<typeof Manifest>;

/** @returns undefined when it is missing, incomplete, or of other sizes than its manifest says; another backend's as it says itself */
export async function findSnapshot(directory: string): Promise<VmSnapshot | undefined> {
  const text = await readFile(join(directory, MANIFEST), 'utf8').catch(() => undefined);
  const manifest = text === undefined ? undefined : parseJson(Manifest, text);
  if (manifest === undefined) return text === undefined ? undefined : foreignSnapshot(text, 'qemu', directory);
  const [overlay, state] = await Promise.all(
    [FILES.overlay, FILES.deviceState].map((file) => sizeOf(join(directory, file))),
  );
  return overlay === manifest.overlayBytes && state === manifest.stateBytes ? viewOf(directory, manifest) : undefined;
}

/** Reads all of it; meant to run beside the VMM that loads it, whose guest must not run before. @throws snapshot_damaged */
export async function verifySnapshot(directory: string): Promise<void> {
  const manifest = parseJson(Manifest, await readFile(join(directory, MANIFEST), 'utf8').catch(() => ''));
  const found = await sha256Hex(join(directory, FILES.deviceState)).catch(() => undefined);
  if (found === undefined || found !== manifest?.stateSha256Hex)
    throw new InstaVMError('snapshot_damaged', 'the saved state was changed since it was made');
}

function viewOf(directory: string, manifest: Manifest): VmSnapshot {
  const { memoryMib, vcpus, accelerator, stateBytes, overlayStoredBytes } = manifest;
  return {
    directory,
    templateKey: manifest.templateKey as TemplateKey,
    templateBuildId: manifest.templateBuildId,
    size: { memoryMib, vcpus },
    backend: 'qemu',
    accelerator,
    storedBytes: stateBytes + overlayStoredBytes,
  };
}

/**
 * Pauses the vCPUs and stores memory, device state and disk.
 * @param then `end`: the VMM is gone afterwards, and its overlay is the snapshot's. `continue`: the vCPUs run on
 * @throws snapshot_failed, capacity_unavailable; the vCPUs then run on
 */
export async function takeSnapshot(
  vmm: QemuProcess,
  template: QemuTemplate,
  directory: string,
  then: 'continue' | 'end',
): Promise<VmSnapshot> {
  const templateBuildId = await requireBuildId(template.directory);
  const { pid } = vmm;
  if (pid === undefined) throw new InstaVMError('snapshot_failed', 'the microVM never ran');
  const parent = dirname(directory);
  const partial = await makePartialSnapshot(parent);
  const store = startStore(pid, template, join(partial, FILES.deviceState));
  let qmp: QmpClient | undefined;
  let copied: Promise<void> | undefined;
  try {
    qmp = await monitorOf(vmm);
    // From here on the guest stands still: all that can be ready is.
    await store.ready;
    await qmp.run('stop');
    copied = copySparse(join(vmm.directory, FILES.overlay), join(partial, FILES.overlay));
    const [stored] = await Promise.all([storeState(vmm, qmp, store), copied]);
    if (then === 'continue') await qmp.run('cont');
    await requireBuildId(template.directory, templateBuildId);
    const overlay = await stat(join(partial, FILES.overlay));
    const manifest: Manifest = {
      templateKey: template.key,
      templateBuildId,
      memoryMib: template.size.memoryMib,
      vcpus: template.size.vcpus,
      accelerator: template.accelerator === 'kvm' ? 'kvm' : 'tcg',
      stateBytes: stored.bytes,
      stateSha256Hex: stored.sha256Hex,
      overlayStoredBytes: overlay.blocks * 512,
      overlayBytes: overlay.size,
    };
    await writeFile(join(partial, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
    for (const file of [FILES.overlay, MANIFEST]) await flush(join(partial, file));
    await flush(partial);
    await rename(partial, directory);
    await flush(parent);
    // All of it is kept by now. What does not end stands still, and whoever releases the microVM is told.
    if (then === 'end') await vmm.kill().catch(() => {});
    return viewOf(directory, manifest);
  } catch (error) {
    try {
      // One that does not go on may stand still for ever, so it is ended: `exited` tells.
      if (qmp !== undefined && !(await qmp.goOn(SOCKET_DEADLINE_MS))) await vmm.exitedOrKilled();
    } finally {
      // Where somebody still writes, it cannot be removed.
      await Promise.allSettled([store.end(), copied]);
      await rm(partial, { recursive: true, force: true });
    }
    throw snapshotFailure(error);
  } finally {
    qmp?.close();
    await store.end();
  }
}

/** @throws snapshot_failed */
async function monitorOf(vmm: QemuProcess): Promise<QmpClient> {
  const socket = await vmm.connect(FILES.qmp, MONITOR_DEADLINE_MS).catch((cause: Error) => {
    throw new InstaVMError('snapshot_failed', 'QEMU cannot be asked: it has ended, or its socket is gone', { cause });
  });
  return QmpClient.open(socket);
}

type StateStore = {
  /** The guest may be stopped. */
  readonly ready: Promise<unknown>;
  /** @param devices QEMU's own stream of them; its guest stands still */
  store(devices: Buffer): Promise<StoreMessage>;
  end(): Promise<void>;
};

/** The thread that stores: its start takes a while, during which the guest can still run. */
function startStore(pid: number, template: QemuTemplate, statePath: string): StateStore {
  const request: StoreRequest = {
    pid,
    statePath,
    templateStatePath: join(template.directory, FILES.deviceState),
    templateMemoryPath: join(template.directory, FILES.memory),
    memoryBytes: template.size.memoryMib * 1024 * 1024,
  };
  const worker = new Worker(new URL('./snapshot-worker.ts', import.meta.url), { workerData: request });
  const messages = receive(worker);
  const ready = messages.next();
  // Heard where it is awaited, or not at all when the snapshot fails before.
  ready.catch(() => {});
  const store = (devices: Buffer): Promise<StoreMessage> => {
    worker.postMessage(devices);
    return messages.next();
  };
  return { ready, store, end: () => worker.terminate().then(() => {}) };
}

async function storeState(
  vmm: QemuProcess,
  qmp: QmpClient,
  store: StateStore,
): Promise<Extract<StoreMessage, { kind: 'stored' }>> {
  const devices = await saveDevices(vmm, qmp);
  const stored = await Promise.race([store.store(devices), sleep(STORE_DEADLINE_MS, undefined, { ref: false })]);
  if (stored?.kind === 'stored') return stored;
  // Whoever broke into QEMU may have memory that is never read to its end.
  await vmm.exitedOrKilled();
  throw new InstaVMError('snapshot_failed', 'storing the state took too long');
}

/**
 * Everything but memory and disks, as one stream. QEMU has this for Xen, whose memory is not QEMU's; it works without. A migration would send the
 * memory, too.
 */
async function saveDevices(vmm: QemuProcess, qmp: QmpClient): Promise<Buffer> {
  const path = await vmm.offer(FILES.devices);
  try {
    // "live" would give up the disks afterwards.
    await qmp.run('xen-save-devices-state', { filename: FILES.devices, live: false });
    return await contentOf(path, MAX_DEVICES_BYTES);
  } finally {
    await rm(path, { force: true });
  }
}

/** The worker's messages, one after another; its failures are thrown. */
function receive(worker: Worker): { next(): Promise<StoreMessage> } {
  const waiting: ((message: StoreMessage | Error) => void)[] = [];
  const come: (StoreMessage | Error)[] = [];
  const take = (message: StoreMessage | Error): void => {
    const first = waiting.shift();
    if (first) first(message);
    else come.push(message);
  };
  worker.on('message', take);
  worker.on('error', take);
  worker.on('exit', () => take(new Error('the storing thread ended')));
  return {
    next: async () => {
      const message = come.shift() ?? (await new Promise<StoreMessage | Error>((resolve) => waiting.push(resolve)));
      if (message instanceof Error) throw message;
      if (message.kind === 'failed') throw Object.assign(new Error(message.message), { code: message.code });
      return message;
    },
  };
}

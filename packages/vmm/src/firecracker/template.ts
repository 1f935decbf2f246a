/** Templates on disk: made by booting, warming and freezing a microVM; found only when complete and intact. */
import { randomBytes } from 'node:crypto';
import { copyFile, link, mkdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentClient, AgentError } from '@instavm/agent-client';
import type { BuildProgress, GuestImages, MachineSize, Template, TemplateKey } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { flush, sha256Hex, sizeOf } from '../host/files.ts';
import { parseManifest } from '../host/manifest.ts';
import { FirecrackerFault } from './api.ts';
import { Jail, type JailSite } from './jail.ts';
import { FILES, GUEST_CID, KERNEL_COMMAND_LINE, limitsOf } from './machine.ts';
import { keepMemory } from './memory.ts';
import { FirecrackerProcess } from './process.ts';

const MANIFEST = 'template.json';
/** A second with hardware virtualisation that is not nested. */
const BOOT_DEADLINE_MS = 120_000;
const WARM_DEADLINE_MS = 180_000;
/** The guest sees the hang-up with its next interrupt; it must have, or every clone would first have to notice it. */
const SETTLE_MS = 200;

const Manifest = z.object({
  key: z.string(),
  backend: z.literal('firecracker'),
  memoryMib: z.number().int().positive(),
  vcpus: z.number().int().positive(),
  /** Which Firecracker, on which processor: no other restores it, or what was made from it. */
  madeBy: z.string(),
  /** Sizes of the files, and the digest of the device state: what a torn copy would get wrong. */
  memoryBytes: z.number().int(),
  overlayBytes: z.number().int(),
  baseBytes: z.number().int(),
  stateSha256Hex: z.string(),
});
type Manifest = z.infer<typeof Manifest>;

export type FirecrackerTemplate = Template & Pick<Manifest, 'madeBy'>;

/** @returns undefined when it is missing, incomplete, or not what its manifest says */
export async function findTemplate(directory: string, key: TemplateKey): Promise<FirecrackerTemplate | undefined> {
  const own = join(directory, key);
  const manifest = parseManifest(Manifest, await readFile(join(own, MANIFEST), 'utf8').catch(() => ''));
  if (manifest?.key !== key) return undefined;
  const sizes = {
    [FILES.memory]: manifest.memoryBytes,
    [FILES.overlay]: manifest.overlayBytes,
    [FILES.base]: manifest.baseBytes,
  };
  for (const [file, bytes] of Object.entries(sizes)) if ((await sizeOf(join(own, file))) !== bytes) return undefined;
  const state = await sha256Hex(join(own, FILES.deviceState)).catch(() => undefined);
  if (state !== manifest.stateSha256Hex) return undefined;
  const { memoryMib, vcpus, madeBy } = manifest;
  return { key, directory: own, size: { memoryMib, vcpus }, backend: 'firecracker', accelerator: 'kvm', madeBy };
}

export type BuildRequest = {
  /** The jail is one of the daemon's, so that it is reaped like any other after a crash. */
  readonly site: JailSite;
  readonly jailName: string;
  readonly uid: number;
  readonly templatesDirectory: string;
  readonly key: TemplateKey;
  readonly madeBy: string;
  readonly images: GuestImages;
  readonly size: MachineSize;
  readonly progress: BuildProgress;
};

/** @throws boot_failed, with the end of the guest's console in `details.console` */
export async function buildTemplate(request: BuildRequest): Promise<Template> {
  const { templatesDirectory, key, images, size } = request;
  await mkdir(templatesDirectory, { recursive: true, mode: 0o700 });
  const partial = join(templatesDirectory, `.partial-${key.slice(0, 12)}-${randomBytes(4).toString('hex')}`);
  await mkdir(partial, { mode: 0o700 });
  try {
    await linkOrCopy(images.basePath, join(partial, FILES.base));
    await freezeBooted(request, partial);
    const manifest: Manifest = {
      key,
      backend: 'firecracker',
      memoryMib: size.memoryMib,
      vcpus: size.vcpus,
      madeBy: request.madeBy,
      memoryBytes: (await stat(join(partial, FILES.memory))).size,
      overlayBytes: (await stat(join(partial, FILES.overlay))).size,
      baseBytes: (await stat(join(partial, FILES.base))).size,
      stateSha256Hex: await sha256Hex(join(partial, FILES.deviceState)),
    };
    await writeFile(join(partial, MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
    for (const file of [FILES.memory, FILES.deviceState, FILES.overlay, FILES.base, MANIFEST])
      await flush(join(partial, file));
    const finished = join(templatesDirectory, key);
    await rm(finished, { recursive: true, force: true });
    await rename(partial, finished);
    await flush(templatesDirectory);
  } catch (error) {
    await rm(partial, { recursive: true, force: true });
    throw error;
  }
  const built = await findTemplate(templatesDirectory, key);
  if (built === undefined)
    throw new InstaVMError('boot_failed', 'the template that was just written cannot be read back');
  return built;
}

/** Boots in a jail, and leaves memory, device state and overlay in `directory`, with the jail gone. */
async function freezeBooted(request: BuildRequest, directory: string): Promise<void> {
  const { images, size, progress, key, uid } = request;
  const jail = await Jail.create(request.site, request.jailName, { uid, templateKey: key });
  try {
    await jail.linkIn(join(directory, FILES.base), FILES.base);
    await jail.copyIn(images.blankOverlayPath, FILES.overlay);
    await jail.copyIn(images.kernelElfPath, FILES.kernel);
    await jail.copyIn(images.initramfsPath, FILES.initramfs);
    const vmm = await FirecrackerProcess.start(jail, limitsOf(size), { keepConsole: true });
    progress(`booting ${size.memoryMib} MiB, ${size.vcpus} vCPU (Firecracker)`);
    await configure(vmm, size);
    await warm(vmm, progress);
    progress('freezing');
    await vmm.api.setState('Paused');
    const files = { snapshot_path: FILES.deviceState, mem_file_path: FILES.memory };
    await vmm.api.put('/snapshot/create', { snapshot_type: 'Full', ...files });
    await jail.cgroup.end();
    await vmm.exited;
    await keepMemory(jail, join(directory, FILES.memory));
    for (const file of [FILES.deviceState, FILES.overlay]) await jail.takeOut(file, join(directory, file));
  } catch (error) {
    const known = error instanceof InstaVMError || error instanceof AgentError || error instanceof FirecrackerFault;
    const details = { console: await jail.diagnostics() };
    throw new InstaVMError('boot_failed', `the template could not be made: ${known ? error.message : String(error)}`, {
      cause: error,
      details,
    });
  } finally {
    await jail.destroy();
  }
}

async function configure({ api }: FirecrackerProcess, size: MachineSize): Promise<void> {
  await api.put('/machine-config', { vcpu_count: size.vcpus, mem_size_mib: size.memoryMib, smt: false });
  await api.put('/boot-source', {
    kernel_image_path: FILES.kernel,
    initrd_path: FILES.initramfs,
    boot_args: KERNEL_COMMAND_LINE,
  });
  const disk = { is_root_device: false, cache_type: 'Unsafe' } as const;
  // In this order: the guest is told which comes first.
  await api.put('/drives/base', { ...disk, drive_id: 'base', path_on_host: FILES.base, is_read_only: true });
  await api.put('/drives/overlay', { ...disk, drive_id: 'overlay', path_on_host: FILES.overlay, is_read_only: false });
  await api.put('/vsock', { guest_cid: GUEST_CID, uds_path: FILES.vsock });
  await api.put('/entropy', {});
  await api.put('/actions', { action_type: 'InstanceStart' });
}

async function warm(vmm: FirecrackerProcess, progress: BuildProgress): Promise<void> {
  const agent = await AgentClient.open(await vmm.connect('control', BOOT_DEADLINE_MS), WARM_DEADLINE_MS);
  try {
    await agent.lifecycle.ping({}, { timeoutMs: WARM_DEADLINE_MS });
    progress('warming the shell and the Python kernel');
    await agent.lifecycle.warm({}, { timeoutMs: WARM_DEADLINE_MS });
    await agent.lifecycle.sync({}, { timeoutMs: WARM_DEADLINE_MS });
  } finally {
    agent.close();
    await agent.closed;
  }
  await sleep(SETTLE_MS);
}

/** A template keeps what it needs: the image may be rebuilt and removed, and jails can link only what is on their filesystem. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  await link(from, to).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EXDEV') throw error;
    return copyFile(from, to);
  });
}

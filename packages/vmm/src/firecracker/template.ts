/** Templates on disk: made by booting, warming and freezing a microVM; found only when complete and intact. */
import { copyFile, link, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import type { BuildProgress, GuestImages, MachineSize, Template, TemplateKey } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { reasonOf } from '../host/failure.ts';
import { sha256Hex, sizeOf } from '../host/files.ts';
import { parseJson } from '../host/parse-json.ts';
import { type Made, makeTemplate, TEMPLATE_MANIFEST } from '../host/template-build.ts';
import { warmGuest } from '../host/warm.ts';
import { Jail, type JailSite } from './jail.ts';
import { FILES, GUEST_CID, KERNEL_COMMAND_LINE, limitsOf } from './machine.ts';
import { keepMemory } from './memory.ts';
import { FirecrackerProcess } from './process.ts';

/** A second with hardware virtualisation that is not nested. */
const BOOT_DEADLINE_MS = 120_000;
/** The guest sees the hang-up with its next interrupt. */
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
  const manifest = parseJson(Manifest, await readFile(join(own, TEMPLATE_MANIFEST), 'utf8').catch(() => ''));
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
  const made = { backend: 'firecracker', accelerator: 'kvm', madeBy } as const;
  return { key, buildId: state, directory: own, size: { memoryMib, vcpus }, ...made };
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
  const { templatesDirectory, key } = request;
  return makeTemplate({ templatesDirectory, key, find: findTemplate }, (directory) => make(request, directory));
}

async function make(request: BuildRequest, directory: string): Promise<Made & { readonly manifest: Manifest }> {
  const { key, madeBy, images, size } = request;
  await linkOrCopy(images.basePath, join(directory, FILES.base));
  await freezeBooted(request, directory);
  const manifest: Manifest = {
    key,
    backend: 'firecracker',
    memoryMib: size.memoryMib,
    vcpus: size.vcpus,
    madeBy,
    memoryBytes: (await stat(join(directory, FILES.memory))).size,
    overlayBytes: (await stat(join(directory, FILES.overlay))).size,
    baseBytes: (await stat(join(directory, FILES.base))).size,
    stateSha256Hex: await sha256Hex(join(directory, FILES.deviceState)),
  };
  return { manifest, files: [FILES.memory, FILES.deviceState, FILES.overlay, FILES.base] };
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
    await warmGuest(await vmm.connect('control', BOOT_DEADLINE_MS), SETTLE_MS, progress);
    progress('freezing');
    await vmm.api.setState('Paused');
    const files = { snapshot_path: FILES.deviceState, mem_file_path: FILES.memory };
    await vmm.api.put('/snapshot/create', { snapshot_type: 'Full', ...files });
    await jail.cgroup.end();
    await vmm.exited;
    await keepMemory(jail, join(directory, FILES.memory));
    for (const file of [FILES.deviceState, FILES.overlay]) await jail.takeOut(file, join(directory, file));
  } catch (error) {
    const details = { console: await jail.diagnostics() };
    throw new InstaVMError('boot_failed', `the template could not be made: ${reasonOf(error)}`, {
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

/** A template keeps what it needs: the image may be rebuilt and removed, and jails can link only what is on their filesystem. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  await link(from, to).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== 'EXDEV') throw error;
    return copyFile(from, to);
  });
}

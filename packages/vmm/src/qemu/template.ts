/** Templates on disk: made by booting, warming and freezing a microVM; found only when complete and intact. */
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { readFile, rm, stat } from 'node:fs/promises';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import type { Accelerator, BuildProgress, GuestImages, MachineSize, Template, TemplateKey } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { reasonOf } from '../host/failure.ts';
import { copySparse, sha256Hex, sizeOf } from '../host/files.ts';
import { parseJson } from '../host/parse-json.ts';
import { listenIn } from '../host/sockets.ts';
import { type Made, makeTemplate, TEMPLATE_MANIFEST } from '../host/template-build.ts';
import { warmGuest } from '../host/warm.ts';
import { FILES, templateArguments } from './arguments.ts';
import { GuestConsole } from './console.ts';
import { PRIVILEGES_ONLY, QemuJails } from './jail.ts';
import { QemuProcess } from './process.ts';
import { QmpClient } from './qmp.ts';

/** Boot, warm and freeze under emulation on a busy machine; three seconds with KVM. */
const BOOT_DEADLINE_MS = 120_000;
/** Each costs about a second when it fails, and most do while the host is very busy. */
const CLOCKLESS_BOOTS_MS = 180_000;
/** The guest needs one interrupt to see a hang-up; emulated and on a busy machine that is still milliseconds. */
const SETTLE_MS = 500;
const FREEZE_DEADLINE_MS = 60_000;
const SOCKET_DEADLINE_MS = 20_000;

const Manifest = z.object({
  key: z.string(),
  memoryMib: z.number().int().positive(),
  vcpus: z.number().int().positive(),
  accelerator: z.enum(['kvm', 'tcg']),
  /** Which QEMU, on which processor where that matters; older templates do not say. */
  madeBy: z.string().optional(),
  images: z.object({ kernelPath: z.string(), initramfsPath: z.string(), basePath: z.string() }),
  /** Sizes of the files, and the digest of the device state: what a torn copy would get wrong. */
  memoryBytes: z.number().int(),
  overlayBytes: z.number().int(),
  stateSha256Hex: z.string(),
});
type Manifest = z.infer<typeof Manifest>;

/** A template with what QEMU needs to restore it. */
export type QemuTemplate = Template & { readonly images: Manifest['images']; readonly madeBy: string | undefined };

/** @returns undefined when it is missing, incomplete, or not what its manifest says */
export async function findTemplate(directory: string, key: TemplateKey): Promise<QemuTemplate | undefined> {
  const own = join(directory, key);
  const text = await readFile(join(own, TEMPLATE_MANIFEST), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const manifest = parseJson(Manifest, text);
  if (manifest === undefined || manifest.key !== key) return undefined;
  const [memory, overlay] = await Promise.all([FILES.memory, FILES.overlay].map((file) => sizeOf(join(own, file))));
  if (memory !== manifest.memoryBytes || overlay !== manifest.overlayBytes) return undefined;
  const state = await sha256Hex(join(own, FILES.deviceState)).catch(() => undefined);
  if (state !== manifest.stateSha256Hex) return undefined;
  for (const path of Object.values(manifest.images)) if ((await sizeOf(path)) === undefined) return undefined;
  const { memoryMib, vcpus, accelerator, images, madeBy } = manifest;
  const size = { memoryMib, vcpus };
  return { key, buildId: state, directory: own, size, backend: 'qemu', accelerator, images, madeBy };
}

export type BuildRequest = {
  readonly binary: string;
  readonly templatesDirectory: string;
  readonly key: TemplateKey;
  readonly madeBy: string;
  readonly images: GuestImages;
  readonly size: MachineSize;
  readonly accelerator: Accelerator;
  readonly progress: BuildProgress;
  /** Replaces the boot deadline; the probe of an accelerator wants to know sooner. */
  readonly bootDeadlineMs?: number;
};

/** @throws boot_failed, with the end of the guest's console in `details.console` */
export async function buildTemplate(request: BuildRequest): Promise<QemuTemplate> {
  const { templatesDirectory, key } = request;
  return makeTemplate({ templatesDirectory, key, find: findTemplate }, (directory) => make(request, directory));
}

async function make(request: BuildRequest, directory: string): Promise<Made & { readonly manifest: Manifest }> {
  const { images, size } = request;
  let frozen = false;
  const until = performance.now() + CLOCKLESS_BOOTS_MS;
  for (let attempt = 0; !frozen; attempt++) {
    if (performance.now() > until) throw new InstaVMError('boot_failed', `the guest got no clock in ${attempt} boots`);
    await copySparse(images.blankOverlayPath, join(directory, FILES.overlay));
    frozen = await freezeBooted(request, directory);
  }
  const manifest: Manifest = {
    key: request.key,
    memoryMib: size.memoryMib,
    vcpus: size.vcpus,
    accelerator: request.accelerator === 'kvm' ? 'kvm' : 'tcg',
    madeBy: request.madeBy,
    images: { kernelPath: images.kernelPath, initramfsPath: images.initramfsPath, basePath: images.basePath },
    memoryBytes: (await stat(join(directory, FILES.memory))).size,
    overlayBytes: (await stat(join(directory, FILES.overlay))).size,
    stateSha256Hex: await sha256Hex(join(directory, FILES.deviceState)),
  };
  return { manifest, files: [FILES.memory, FILES.deviceState, FILES.overlay] };
}

/**
 * Boots in `directory` and leaves memory, device state and overlay there, with the VMM ended.
 * @returns false when the guest got no clock and must be booted again
 */
async function freezeBooted(request: BuildRequest, directory: string): Promise<boolean> {
  const { binary, images, size, accelerator, progress } = request;
  const name = `template-${request.key.slice(0, 12)}`;
  const { kernelPath: kernel, initramfsPath: initramfs, basePath: base } = images;
  const vmm = QemuProcess.spawn(binary, templateArguments({ name, size, accelerator }), directory, {
    files: { kernel, initramfs, base },
    // Its guest runs nothing but ours, and its files become the daemon's.
    jail: new QemuJails(PRIVILEGES_ONLY).make(name),
    isBound: true,
  });
  let qmp: QmpClient | undefined;
  let guestConsole: GuestConsole | undefined;
  try {
    qmp = await QmpClient.open(await vmm.connect(FILES.qmp, SOCKET_DEADLINE_MS));
    guestConsole = new GuestConsole(qmp);
    progress(`booting ${size.memoryMib} MiB, ${size.vcpus} vCPU (${accelerator})`);
    if (!(await guestConsole.waitForAgent(request.bootDeadlineMs ?? BOOT_DEADLINE_MS))) {
      progress('the guest got no clock; booting again');
      return false;
    }
    await warmGuest(await vmm.connect(FILES.control, SOCKET_DEADLINE_MS), SETTLE_MS, progress);
    progress('freezing');
    // Without a `stop` first: the state then says "running", and a clone runs as soon as it is loaded.
    await qmp.run('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] });
    await saveState(qmp, directory);
    await qmp.run('quit').catch(() => {});
    await vmm.exited;
  } catch (error) {
    const console = (await guestConsole?.read().catch(() => guestConsole?.text)) ?? '';
    await vmm.exitedOrKilled();
    const { diagnostics } = await vmm.exited;
    const said = diagnostics.trim().split('\n').at(-1) ?? '';
    const why = said === '' ? reasonOf(error) : `${reasonOf(error)}: ${reasonOf(said)}`;
    const details = { console, diagnostics };
    throw new InstaVMError('boot_failed', `the template could not be made: ${why}`, { cause: error, details });
  } finally {
    qmp?.close();
    await vmm.exitedOrKilled();
  }
  for (const socket of [FILES.control, FILES.egress, FILES.qmp, FILES.stderr])
    await rm(join(directory, socket), { force: true });
  return true;
}

/** QEMU may start no program and open no file for it, so it sends its state here. */
async function saveState(qmp: QmpClient, directory: string): Promise<void> {
  const server = await listenIn(directory, FILES.state);
  try {
    const saved = once(server, 'connection').then(([socket]) =>
      pipeline(socket as Socket, createWriteStream(join(directory, FILES.deviceState), { mode: 0o600 })),
    );
    saved.catch(() => {});
    await qmp.run('migrate', { uri: `unix:${FILES.state}` });
    const end = await qmp.migrationEnd(FREEZE_DEADLINE_MS);
    if (end !== 'completed')
      throw new InstaVMError('boot_failed', `saving the state ${end ?? `took longer than ${FREEZE_DEADLINE_MS} ms`}`);
    await saved;
  } finally {
    server.close();
  }
}

/**
 * The fake backend: the Vmm port without a guest. Commands run on the host, as the daemon's user, in a temporary directory that stands
 * for the guest's disk, behind the same handshake, gRPC services and error words as the real agent's. It isolates nothing, and its
 * snapshots keep the disk only, for a process of the host cannot be kept: for tests.
 */
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Duplex } from 'node:stream';
import type {
  Channel,
  GuestImages,
  MachineSize,
  MicroVm,
  Template,
  TemplateKey,
  Vmm,
  VmmExit,
  VmSnapshot,
} from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { checkBuilding } from '../host/template-build.ts';
import { acceptEgress } from './egress.ts';
import { FakeGuest } from './guest.ts';
import { streamPair } from './stream-pair.ts';

/** There are none; the digest is part of template keys. */
export const fakeImages: GuestImages = {
  kernelPath: '/nonexistent/kernel',
  kernelElfPath: '/nonexistent/kernel',
  initramfsPath: '/nonexistent/initramfs',
  basePath: '/nonexistent/base',
  blankOverlayPath: '/nonexistent/overlay',
  digest: 'fake',
};

export type FakeOptions = {
  /** Where the guests' disks are; without one they are temporary directories of the system. */
  readonly runDirectory?: string;
  /** The real agent's binary, which runs the terminals; without one there are none. */
  readonly agentPath?: string;
};

export function createFakeVmm({ runDirectory, agentPath }: FakeOptions = {}): Vmm {
  const templates = new Map<TemplateKey, Template>();
  const templateKey = (images: GuestImages, { memoryMib, vcpus }: MachineSize): TemplateKey =>
    `${images.digest}-${memoryMib}-${vcpus}` as TemplateKey;
  return {
    backend: 'fake',
    accelerator: 'none',
    templateKey,
    findTemplate: async (key) => templates.get(key),
    buildTemplate: async (images, size, progress) => {
      const key = templateKey(images, size);
      progress('pretending to boot');
      const template = templateOf(key, size);
      templates.set(key, template);
      return template;
    },
    restore: async (source, incarnationId) => {
      const code = 'key' in source ? 'boot_failed' : 'snapshot_incompatible';
      if (source.backend !== 'fake') throw new InstaVMError(code, 'this was not made by the fake backend');
      if (!('key' in source)) checkBuilding(source, templateOf(source.templateKey, source.size));
      const directory =
        runDirectory === undefined ? await mkdtemp(join(tmpdir(), 'instavm-fake-')) : join(runDirectory, incarnationId);
      for (const name of ['disk/root', 'disk/tmp', 'disk/workspace', 'scripts'])
        await mkdir(join(directory, name), { recursive: true, mode: 0o700 });
      if (!('key' in source)) await cp(join(source.directory, 'disk'), join(directory, 'disk'), { recursive: true });
      const templateKeyOf = 'key' in source ? source.key : source.templateKey;
      return microVm(incarnationId, directory, source.size, templateKeyOf, agentPath);
    },
    findSnapshot,
    removePartialSnapshots: async (parent) => {
      const names = (await readdir(parent).catch(() => [])).filter((name) => name.startsWith(PARTIAL));
      for (const name of names) await rm(join(parent, name), { recursive: true, force: true });
      return names.length;
    },
    // Its guests are part of the daemon's process.
    adoptSurvivors: async () => [],
    reapLeftovers: async () => {
      const names = runDirectory === undefined ? [] : await readdir(runDirectory).catch(() => []);
      for (const name of names) await rm(join(runDirectory ?? '', name), { recursive: true, force: true });
      return names.length;
    },
  };
}

/** Nothing is in it, so all of its buildings are the same. */
const templateOf = (key: TemplateKey, size: MachineSize): Template => ({
  key,
  buildId: 'fake',
  directory: '/nonexistent',
  size,
  backend: 'fake',
  accelerator: 'none',
});

const MANIFEST = 'snapshot.json';
const PARTIAL = '.partial-';
type FakeManifest = { templateKey: TemplateKey; templateBuildId: string; memoryMib: number; vcpus: number };

async function findSnapshot(directory: string): Promise<VmSnapshot | undefined> {
  const text = await readFile(join(directory, MANIFEST), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : viewOf(directory, JSON.parse(text) as FakeManifest);
}

const viewOf = (directory: string, { templateKey, templateBuildId, memoryMib, vcpus }: FakeManifest): VmSnapshot => ({
  directory,
  templateKey,
  templateBuildId,
  size: { memoryMib, vcpus },
  backend: 'fake',
  accelerator: 'none',
  storedBytes: 0,
});

function microVm(
  incarnationId: MicroVm['incarnationId'],
  directory: string,
  size: MachineSize,
  templateKey: TemplateKey,
  agentPath: string | undefined,
): MicroVm {
  const streams = new Map<Channel, Duplex>();
  let finish: (exit: VmmExit) => void = () => {};
  const exited = new Promise<VmmExit>((resolve) => {
    finish = resolve;
  });
  let killed: Promise<void> | undefined;
  let gone = false;
  const end = async (requested: boolean): Promise<void> => {
    gone = true;
    // Before what runs in it, as with a microVM that is killed: nobody inside says goodbye.
    for (const stream of streams.values()) stream.destroy();
    await guest.close();
    // A shell whose terminal has just hung up may be writing its history.
    await rm(directory, { recursive: true, force: true, maxRetries: 20 });
    finish({ code: 0, signal: null, requested, diagnostics: '' });
  };
  const powerOff = (): void => {
    killed ??= end(false);
  };
  const guest = new FakeGuest(directory, size, powerOff, agentPath);
  return {
    incarnationId,
    accelerator: 'none',
    pid: undefined,
    exited,
    connect: async (channel) => {
      if (gone) throw new InstaVMError('boot_failed', 'the microVM has ended');
      streams.get(channel)?.destroy();
      const [host, inside] = streamPair();
      streams.set(channel, host);
      if (channel === 'control') guest.accept(inside);
      else acceptEgress(inside);
      return host;
    },
    snapshot: async (target, then) => {
      if (gone) throw new InstaVMError('snapshot_failed', 'the microVM has ended');
      const parent = dirname(target);
      const partial = join(parent, `${PARTIAL}${incarnationId}`);
      await mkdir(parent, { recursive: true, mode: 0o700 });
      await cp(join(directory, 'disk'), join(partial, 'disk'), { recursive: true });
      const manifest: FakeManifest = { templateKey, templateBuildId: templateOf(templateKey, size).buildId, ...size };
      await writeFile(join(partial, MANIFEST), JSON.stringify(manifest));
      await rename(partial, target);
      if (then === 'end') {
        killed ??= end(true);
        await killed;
      }
      return viewOf(target, manifest);
    },
    kill: () => {
      killed ??= end(true);
      return killed;
    },
  };
}

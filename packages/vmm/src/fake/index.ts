/**
 * The fake backend: the Vmm port without a guest. Commands run on the host, as the daemon's user, in a temporary directory that stands
 * for the guest's disk, behind the same handshake, gRPC services and error words as the real agent's. It isolates nothing: for tests.
 */
import { cp, mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
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
import { FakeGuest } from './guest.ts';
import { streamPair } from './stream-pair.ts';

/** There are none; the digest is part of template keys. */
export const fakeImages: GuestImages = {
  kernelPath: '/nonexistent/kernel',
  initramfsPath: '/nonexistent/initramfs',
  basePath: '/nonexistent/base',
  blankOverlayPath: '/nonexistent/overlay',
  digest: 'fake',
};

const MANIFEST = 'snapshot.json';

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
      const template: Template = { key, directory: '/nonexistent', size, backend: 'fake', accelerator: 'none' };
      templates.set(key, template);
      return template;
    },
    restore: async (template, incarnationId) => {
      if (template.backend !== 'fake') throw new InstaVMError('boot_failed', 'this is no template of the fake backend');
      const directory =
        runDirectory === undefined ? await mkdtemp(join(tmpdir(), 'instavm-fake-')) : join(runDirectory, incarnationId);
      for (const name of ['disk/root', 'disk/tmp', 'disk/workspace', 'scripts'])
        await mkdir(join(directory, name), { recursive: true, mode: 0o700 });
      if ('templateKey' in template)
        await cp(join(template.directory, 'disk'), join(directory, 'disk'), { recursive: true });
      return microVm(incarnationId, directory, template, agentPath);
    },
    findSnapshot: async (directory) => {
      try {
        return { ...(JSON.parse(await readFile(join(directory, MANIFEST), 'utf8')) as VmSnapshot), directory };
      } catch {
        return undefined;
      }
    },
    pruneTemplates: async () => [],
    // A fake guest lives inside its daemon.
    adoptSurvivors: async () => [],
    reapLeftovers: async () => {
      const names = runDirectory === undefined ? [] : await readdir(runDirectory).catch(() => []);
      for (const name of names) await rm(join(runDirectory ?? '', name), { recursive: true, force: true });
      return names.length;
    },
  };
}

function microVm(
  incarnationId: MicroVm['incarnationId'],
  directory: string,
  source: Template | VmSnapshot,
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
    await guest.close();
    for (const stream of streams.values()) stream.destroy();
    await rm(directory, { recursive: true, force: true });
    finish({ code: 0, signal: null, requested, diagnostics: '' });
  };
  const powerOff = (): void => {
    killed ??= end(false);
  };
  const guest = new FakeGuest(directory, source.size, powerOff, agentPath);
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
      return host;
    },
    snapshot: async (target, then) => {
      const partial = `${target}.partial`;
      await mkdir(partial, { recursive: true, mode: 0o700 });
      await cp(join(directory, 'disk'), join(partial, 'disk'), { recursive: true });
      const { size, backend, accelerator } = source;
      const templateKey = 'templateKey' in source ? source.templateKey : source.key;
      const made = { templateKey, size, backend, accelerator, storedBytes: 1 };
      await writeFile(join(partial, MANIFEST), JSON.stringify(made));
      await rename(partial, target);
      if (then === 'end') {
        killed ??= end(true);
        await killed;
      }
      return { ...made, directory: target };
    },
    kill: () => {
      killed ??= end(true);
      return killed;
    },
  };
}

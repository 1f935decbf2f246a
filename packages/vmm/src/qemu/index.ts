/** The QEMU backend: `-M microvm`, with KVM where a guest truly runs and emulation otherwise. */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import type {
  Accelerator,
  BuildProgress,
  Channel,
  GuestImages,
  IncarnationId,
  MachineSize,
  MicroVm,
  Template,
  TemplateKey,
  Vmm,
} from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { cloneArguments, cpuModel, FILES, QEMU_BINARY, STATE_DESCRIPTOR, TEMPLATE_FORMAT } from './arguments.ts';
import { copySparse } from './overlay.ts';
import { QemuProcess, reapDirectory } from './process.ts';
import { QmpClient } from './qmp.ts';
import { buildTemplate, findTemplate, type QemuTemplate } from './template.ts';

export { type KvmVerdict, probeKvm, qemuVersion } from './probe.ts';

const CHANNEL_DEADLINE_MS = 20_000;
/** A clone touches 70 to 140 MiB of its own; below this much free memory the host is full. */
const MEMORY_FLOOR_KIB = 384 * 1024;

export type QemuOptions = {
  /** Where templates are kept; may be shared by several daemons. */
  readonly templatesDirectory: string;
  /** One daemon's running microVMs. */
  readonly runDirectory: string;
  readonly accelerator: Exclude<Accelerator, 'none'>;
  /** Output of `qemuVersion`: part of a template's key. */
  readonly version: string;
  readonly binary?: string;
};

export function createQemuVmm(options: QemuOptions): Vmm {
  const { templatesDirectory, runDirectory, accelerator, version, binary = QEMU_BINARY } = options;
  const builds = new Map<TemplateKey, Promise<Template>>();

  const templateKey = (images: GuestImages, size: MachineSize): TemplateKey => {
    const host = accelerator === 'kvm' ? (cpus()[0]?.model ?? '') : '';
    const parts = [
      TEMPLATE_FORMAT,
      version,
      accelerator,
      cpuModel(accelerator),
      host,
      images.digest,
      size.memoryMib,
      size.vcpus,
    ];
    return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32) as TemplateKey;
  };

  return {
    backend: 'qemu',
    accelerator,
    templateKey,
    findTemplate: (key) => findTemplate(templatesDirectory, key),
    buildTemplate: (images: GuestImages, size: MachineSize, progress: BuildProgress) => {
      const key = templateKey(images, size);
      const running = builds.get(key);
      if (running !== undefined) return running;
      const build = buildTemplate({ binary, templatesDirectory, key, images, size, accelerator, progress }).finally(
        () => builds.delete(key),
      );
      builds.set(key, build);
      return build;
    },
    restore: (source, incarnationId) => {
      if ('templateKey' in source) throw new InstaVMError('unsupported', 'snapshots come with the next change');
      return restore(binary, runDirectory, source, incarnationId);
    },
    findSnapshot: async () => undefined,
    pruneTemplates: async () => [],
    adoptSurvivors: async () => [],
    reapLeftovers: () => reapDirectory(runDirectory),
  };
}

async function restore(
  binary: string,
  runDirectory: string,
  template: Template,
  incarnationId: IncarnationId,
): Promise<MicroVm> {
  if (!isQemuTemplate(template))
    throw new InstaVMError('boot_failed', `a ${template.backend} template cannot be restored by QEMU`);
  await checkMemory();
  const directory = join(runDirectory, incarnationId);
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const { size, accelerator, images } = template;
  const inTemplate = (file: string): string => join(template.directory, file);
  let vmm: QemuProcess | undefined;
  try {
    await copySparse(inTemplate(FILES.overlay), join(directory, FILES.overlay));
    const machine = { name: incarnationId, size, accelerator, images, memoryPath: inTemplate(FILES.memory) };
    vmm = new QemuProcess(binary, cloneArguments(machine), directory, inTemplate(FILES.deviceState));
    await load(vmm);
  } catch (error) {
    await (vmm === undefined ? rm(directory, { recursive: true, force: true }) : vmm.kill());
    throw error;
  }
  return microVm(vmm, incarnationId, accelerator);
}

async function load(vmm: QemuProcess): Promise<void> {
  const qmp = await QmpClient.open(await vmm.connect(FILES.qmp, CHANNEL_DEADLINE_MS));
  try {
    await qmp.run('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] });
    await qmp.run('migrate-incoming', { uri: `fd:${STATE_DESCRIPTOR}` });
  } finally {
    qmp.close();
  }
}

function microVm(vmm: QemuProcess, incarnationId: IncarnationId, accelerator: Accelerator): MicroVm {
  let killed: Promise<void> | undefined;
  return {
    incarnationId,
    accelerator,
    pid: vmm.pid,
    exited: vmm.exited,
    connect: (channel: Channel) => vmm.connect(FILES[channel], CHANNEL_DEADLINE_MS),
    snapshot: async () => {
      throw new InstaVMError('unsupported', 'snapshots come with the next change');
    },
    kill: () => {
      killed ??= vmm.kill();
      return killed;
    },
  };
}

const isQemuTemplate = (template: Template): template is QemuTemplate =>
  template.backend === 'qemu' && 'images' in template;

/** @throws capacity_unavailable */
async function checkMemory(): Promise<void> {
  const meminfo = await readFile('/proc/meminfo', 'utf8');
  const availableKib = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0);
  if (availableKib < MEMORY_FLOOR_KIB) {
    throw new InstaVMError('capacity_unavailable', 'the host has too little free memory for another microVM', {
      details: { availableMib: Math.floor(availableKib / 1024) },
    });
  }
}

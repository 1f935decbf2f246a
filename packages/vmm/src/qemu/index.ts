/** The QEMU backend: `-M microvm`, with KVM where a guest truly runs and emulation otherwise. */
import { createHash } from 'node:crypto';
import { mkdir, readdir, rm } from 'node:fs/promises';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type Accelerator,
  type BuildProgress,
  type Channel,
  type GuestImages,
  type IncarnationId,
  type MachineSize,
  type MicroVm,
  mapLimited,
  parseIncarnationId,
  type Template,
  type TemplateKey,
  type Vmm,
  type VmSnapshot,
} from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import type { DiskLimits } from '../host/disk-limits.ts';
import { ending } from '../host/ending.ts';
import { restoreFailure } from '../host/failure.ts';
import { copySparse } from '../host/files.ts';
import { checkMemory } from '../host/memory.ts';
import { removePartialSnapshots } from '../host/partial-snapshots.ts';
import { checkBuilding } from '../host/template-build.ts';
import { cloneArguments, cpuModel, DESCRIPTORS, FILES, QEMU_BINARY, TEMPLATE_FORMAT } from './arguments.ts';
import { readIdentity, writeIdentity } from './identity.ts';
import { type Confinement, type QemuJail, QemuJails } from './jail.ts';
import { QemuProcess, reapDirectory } from './process.ts';
import { QmpClient } from './qmp.ts';
import { findSnapshot, takeSnapshot } from './snapshot.ts';
import { buildTemplate, findTemplate, type QemuTemplate } from './template.ts';

export { type DiskLimits, UNLIMITED } from '../host/disk-limits.ts';
export { strangersAmong } from '../host/uids.ts';
export { type Confinement, PRIVILEGES_ONLY, probeConfinement } from './jail.ts';
export { type KvmVerdict, locateQemu, probeKvm, qemuVersion } from './probe.ts';

/** Ends every QEMU of a daemon's run directory, and removes what it left. @returns how many */
export const reapQemu = (runDirectory: string, confinement: Confinement): Promise<number> =>
  reap(runDirectory, new QemuJails(confinement), new Set());

async function reap(runDirectory: string, jails: QemuJails, owned: ReadonlySet<string>): Promise<number> {
  const found = await reapDirectory(runDirectory, owned, (name) => jails.reap(name));
  return found + (await jails.reapOthers(owned));
}

const CHANNEL_DEADLINE_MS = 20_000;
/** Those that hang are waited for: together, so that they do not keep a daemon from its start. */
const ADOPTED_AT_ONCE = 16;
/** For the memory of the largest machine, on a busy host. */
const LOAD_DEADLINE_MS = 120_000;
const LOAD_POLL_MS = 2;
/** Between the end of its answers and its own. */
const EXIT_GRACE_MS = 2_000;
const CANNOT_LOAD = 'QEMU could not load the snapshot';

export type QemuOptions = {
  /** Where templates are kept; may be shared by several daemons. */
  readonly templatesDirectory: string;
  /** One daemon's running microVMs. */
  readonly runDirectory: string;
  readonly accelerator: Exclude<Accelerator, 'none'>;
  /** Output of `qemuVersion`: part of a template's key. */
  readonly version: string;
  /** Of each disk of every microVM. */
  readonly disk: DiskLimits;
  /** What `probeConfinement` found. */
  readonly confinement: Confinement;
  readonly binary?: string;
};

export function createQemuVmm(options: QemuOptions): Vmm {
  const { templatesDirectory, runDirectory, accelerator, version, binary = QEMU_BINARY } = options;
  const host = accelerator === 'kvm' ? (cpus()[0]?.model ?? '') : '';
  const madeBy = host === '' ? version : `${version} on ${host}`;
  const builds = new Map<TemplateKey, Promise<Template>>();
  const jails = new QemuJails(options.confinement);

  const templateKey = (images: GuestImages, size: MachineSize): TemplateKey => {
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

  /** Run directories of microVMs that somebody holds. */
  const owned = new Set<string>();
  const own = (vm: MicroVm): MicroVm => {
    owned.add(vm.incarnationId);
    return { ...vm, kill: ending(vm.kill, () => void owned.delete(vm.incarnationId)) };
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
      const build = buildTemplate({
        binary,
        templatesDirectory,
        key,
        madeBy,
        images,
        size,
        accelerator,
        progress,
      }).finally(() => builds.delete(key));
      builds.set(key, build);
      return build;
    },
    restore: async (source, incarnationId) => {
      const template = await templateOf(source, templatesDirectory, accelerator, madeBy);
      // What is in a template's own directory is its clone's beginning; a snapshot brings another state and disk.
      const jail = jails.make(incarnationId);
      const from = { template, stateDirectory: source.directory };
      return own(await restore({ binary, runDirectory, ...from, incarnationId, jail, disk: options.disk }));
    },
    adoptSurvivors: async () => {
      const adopted: MicroVm[] = [];
      await mapLimited(await readdir(runDirectory).catch(() => []), ADOPTED_AT_ONCE, async (name) => {
        const vm = owned.has(name) ? undefined : await adopt(join(runDirectory, name), name, templatesDirectory, jails);
        if (vm !== undefined) adopted.push(own(vm));
      });
      return adopted;
    },
    findSnapshot,
    removePartialSnapshots,
    reapLeftovers: () => reap(runDirectory, jails, owned),
  };
}

/** @throws boot_failed, snapshot_incompatible */
async function templateOf(
  source: Template | VmSnapshot,
  templatesDirectory: string,
  accelerator: Accelerator,
  madeBy: string,
): Promise<QemuTemplate> {
  if ('key' in source) {
    if (isQemuTemplate(source)) return source;
    throw new InstaVMError('boot_failed', `a ${source.backend} template cannot be restored by QEMU`);
  }
  const isOurs = source.backend === 'qemu' && source.accelerator === accelerator;
  const template = isOurs ? await findTemplate(templatesDirectory, source.templateKey) : undefined;
  const maker = template?.madeBy ?? `${source.backend} (${source.accelerator})`;
  if (template !== undefined && (template.madeBy === undefined || template.madeBy === madeBy)) {
    checkBuilding(source, template);
    return template;
  }
  const why =
    isOurs && template === undefined
      ? 'what the snapshot was made from is not on this host'
      : `the snapshot was made by ${maker}, and this daemon runs ${madeBy} (${accelerator})`;
  throw new InstaVMError('snapshot_incompatible', why, {
    details: { backend: source.backend, accelerator: source.accelerator },
    ...(isOurs && template !== undefined ? { hint: ANOTHER_RELEASE } : {}),
  });
}

/** Nothing is lost: what made it restores it. */
const ANOTHER_RELEASE = 'Start the daemon with what made it: INSTAVM_QEMU_BIN names another release. Or delete it.';

type Restoring = {
  readonly binary: string;
  readonly runDirectory: string;
  readonly template: QemuTemplate;
  /** Where device state and overlay are. */
  readonly stateDirectory: string;
  readonly incarnationId: IncarnationId;
  readonly jail: QemuJail;
  readonly disk: DiskLimits;
};

async function restore(restoring: Restoring): Promise<MicroVm> {
  const { binary, runDirectory, template, stateDirectory, incarnationId, jail, disk } = restoring;
  const directory = join(runDirectory, incarnationId);
  const { size, accelerator, images } = template;
  let vmm: QemuProcess | undefined;
  try {
    await checkMemory();
    await mkdir(directory, { recursive: true, mode: 0o700 });
    await copySparse(join(stateDirectory, FILES.overlay), join(directory, FILES.overlay));
    const memory = join(template.directory, FILES.memory);
    const { kernelPath: kernel, initramfsPath: initramfs, basePath: base } = images;
    await jail.prepare(directory, size, { memory, images: [kernel, initramfs, base] });
    const files = { deviceState: join(stateDirectory, FILES.deviceState), kernel, initramfs, base, memory };
    const args = cloneArguments({ name: incarnationId, size, accelerator, disk });
    vmm = QemuProcess.spawn(binary, args, directory, { files, jail });
    // Its limits hold before the guest runs.
    if (vmm.pid !== undefined) await jail.enter(vmm.pid, directory, disk);
    await load(vmm, stateDirectory !== template.directory, async (pid) => {
      await jail.lock(directory);
      const own = { templateKey: template.key, ...(jail.uid === undefined ? {} : { uid: jail.uid }) };
      await writeIdentity(directory, pid, own);
    });
  } catch (cause) {
    const error = vmm === undefined ? cause : await vmm.startFailure(cause);
    await (vmm === undefined ? rm(directory, { recursive: true, force: true }).then(() => jail.close()) : vmm.kill());
    throw restoreFailure(error);
  }
  return microVm(vmm, template, incarnationId);
}

/** @returns undefined when nothing that is proven to be the VMM of this directory runs and answers */
async function adopt(
  directory: string,
  name: string,
  templatesDirectory: string,
  jails: QemuJails,
): Promise<MicroVm | undefined> {
  const incarnationId = parseIncarnationId(name);
  const identity = incarnationId === undefined ? undefined : await readIdentity(directory);
  if (incarnationId === undefined || identity === undefined) return undefined;
  const template = await findTemplate(templatesDirectory, identity.templateKey as TemplateKey);
  if (template === undefined) return undefined;
  const jail = jails.find(name, identity.uid);
  const vmm = QemuProcess.adopt(directory, identity, jail);
  try {
    await jail.lock(directory);
    const qmp = await QmpClient.open(await vmm.connect(FILES.qmp, CHANNEL_DEADLINE_MS));
    const { status } = Status.parse(await qmp.run('query-status'));
    // A daemon that ended in the middle of a snapshot left it standing.
    const goes = status === 'running' || (await qmp.goOn(CHANNEL_DEADLINE_MS));
    qmp.close();
    if (!goes) return undefined;
  } catch {
    // One that does not answer is no survivor; it is reaped.
    return undefined;
  }
  jails.hold(jail);
  return microVm(vmm, template, incarnationId);
}

const Status = z.object({ status: z.string() });

/**
 * @param isPaused the state says so, as a snapshot's does: it was taken with the vCPUs stopped
 * @param onStarted when the process is QEMU, and its guest does not run yet
 */
async function load(vmm: QemuProcess, isPaused: boolean, onStarted: (pid: number) => Promise<void>): Promise<void> {
  const qmp = await QmpClient.open(await vmm.connect(FILES.qmp, CHANNEL_DEADLINE_MS));
  try {
    if (vmm.pid !== undefined) await onStarted(vmm.pid);
    await qmp.run('migrate-set-capabilities', { capabilities: [{ capability: 'x-ignore-shared', state: true }] });
    await qmp.run('migrate-incoming', { uri: `fd:${DESCRIPTORS.deviceState}` });
    if (!isPaused) return;
    await loaded(vmm, qmp);
    await qmp.run('cont');
  } finally {
    qmp.close();
  }
}

/** @throws boot_failed */
async function loaded(vmm: QemuProcess, qmp: QmpClient): Promise<void> {
  for (const until = performance.now() + LOAD_DEADLINE_MS; performance.now() < until; await sleep(LOAD_POLL_MS)) {
    const answer = await qmp.run('query-status').catch(async (cause: unknown) => {
      // Why it ended says more; one that only keeps silent is ended by the caller.
      const exit = await Promise.race([vmm.exited, sleep(EXIT_GRACE_MS, undefined, { ref: false })]);
      const why = exit === undefined ? 'QEMU does not answer while it loads the snapshot' : CANNOT_LOAD;
      throw new InstaVMError('boot_failed', why, { cause, details: { diagnostics: exit?.diagnostics ?? '' } });
    });
    if (Status.parse(answer).status !== 'inmigrate') return;
  }
  throw new InstaVMError('boot_failed', `QEMU did not load the snapshot within ${LOAD_DEADLINE_MS} ms`);
}

function microVm(vmm: QemuProcess, template: QemuTemplate, incarnationId: IncarnationId): MicroVm {
  return {
    incarnationId,
    accelerator: template.accelerator,
    pid: vmm.pid,
    exited: vmm.exited,
    connect: (channel: Channel) => vmm.connect(FILES[channel], CHANNEL_DEADLINE_MS),
    snapshot: (directory, then) => takeSnapshot(vmm, template, directory, then),
    kill: () => vmm.kill(),
  };
}

const isQemuTemplate = (template: Template): template is QemuTemplate =>
  template.backend === 'qemu' && 'images' in template;

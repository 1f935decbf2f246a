/** The Firecracker backend: KVM, with every microVM in a jail of its own. Needs root, cgroup v2 and a working /dev/kvm. */
import { createHash } from 'node:crypto';
import { cpus } from 'node:os';
import { join } from 'node:path';
import {
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
  type VmmObserver,
  type VmSnapshot,
} from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { removeIfEmpty } from '../host/cgroup.ts';
import { ending } from '../host/ending.ts';
import { reasonOf, restoreFailure } from '../host/failure.ts';
import { checkMemory } from '../host/memory.ts';
import { removePartialSnapshots } from '../host/partial-snapshots.ts';
import { checkBuilding, readBuildId } from '../host/template-build.ts';
import { type UidRange, Uids } from '../host/uids.ts';
import { Jail, type JailSite } from './jail.ts';
import { findJails, reapJails } from './jails.ts';
import { type DiskLimits, FILES, limitsOf, rateLimiterOf, TEMPLATE_FORMAT } from './machine.ts';
import { assembleMemory, memoryBytesOf } from './memory.ts';
import { keepsHoles } from './memory-delta.ts';
import { FirecrackerProcess } from './process.ts';
import { findSnapshot, takeSnapshot } from './snapshot.ts';
import { buildTemplate, findTemplate } from './template.ts';
import type { FirecrackerBinaries } from './version.ts';

export type { UidRange } from '../host/uids.ts';
export { type DiskLimits, UNLIMITED } from './machine.ts';
export { type FirecrackerBinaries, firecrackerVersion } from './version.ts';

/** Those of every executable, for a daemon that does not use Firecracker. @returns how many */
export const reapAllJails = (baseDirectory: string, parentCgroup: string): Promise<number> =>
  reapJails(baseDirectory, parentCgroup, new Set());

const CHANNEL_DEADLINE_MS = 20_000;
/** Those that hang are waited for: together, so that they do not keep a daemon from its start. */
const ADOPTED_AT_ONCE = 16;

export type FirecrackerOptions = {
  /** Where templates are kept; may be shared by several daemons. On the same filesystem as `runDirectory`. */
  readonly templatesDirectory: string;
  /** One daemon's jails. */
  readonly runDirectory: string;
  readonly binaries: FirecrackerBinaries;
  /** What `firecrackerVersion` says of the binaries: part of a template's key. */
  readonly version: string;
  readonly uids: UidRange;
  /** Relative to the mount of cgroup v2; one daemon's own. */
  readonly parentCgroup: string;
  /** Of each disk of every microVM. */
  readonly disk: DiskLimits;
  readonly observer?: VmmObserver;
};

export function createFirecrackerVmm(options: FirecrackerOptions): Vmm {
  const { templatesDirectory, version } = options;
  const processor = cpus()[0]?.model ?? '';
  const madeBy = `Firecracker ${version} on ${processor}`;
  const site: JailSite = {
    binaries: options.binaries,
    baseDirectory: options.runDirectory,
    parentCgroup: options.parentCgroup,
    disk: options.disk,
    observer: options.observer ?? (() => {}),
  };
  const uids = new Uids(options.uids);
  const builds = new Map<TemplateKey, Promise<Template>>();
  let holes: Promise<boolean> | undefined;
  const holesAreKept = (): Promise<boolean> => {
    holes ??= keepsHoles(site.baseDirectory).catch((error: unknown) => {
      holes = undefined;
      throw error;
    });
    return holes;
  };

  const templateKey = (images: GuestImages, size: MachineSize): TemplateKey => {
    const parts = ['firecracker', TEMPLATE_FORMAT, version, processor, images.digest, size.memoryMib, size.vcpus];
    return createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32) as TemplateKey;
  };

  /** Names of jails that somebody holds. */
  const owned = new Set<string>();
  const disown = (name: string): void => {
    owned.delete(name);
    if (owned.size === 0) removeIfEmpty(site.parentCgroup);
  };
  const own = (vmm: FirecrackerProcess, template: Template, incarnationId: IncarnationId): MicroVm => ({
    incarnationId,
    accelerator: 'kvm',
    pid: vmm.pid,
    exited: vmm.exited,
    connect: (channel: Channel) => vmm.connect(channel, CHANNEL_DEADLINE_MS),
    snapshot: (directory, then) => takeSnapshot(vmm, template, directory, { then, holesAreKept }),
    kill: ending(
      () => vmm.kill(),
      () => {
        disown(vmm.jail.name);
        uids.release(vmm.jail.record.uid);
      },
    ),
  });

  const restore = async (source: Template | VmSnapshot, incarnationId: IncarnationId): Promise<MicroVm> => {
    const template = await templateOf(source, templatesDirectory, madeBy);
    await checkMemory();
    const [name, uid] = [jailName(incarnationId), uids.take()];
    owned.add(name);
    let jail: Jail | undefined;
    try {
      // As it is on the disk now, whichever the caller has known so far.
      const templateBuildId = await readBuildId(template.directory);
      jail = await Jail.create(site, name, { uid, templateKey: template.key, templateBuildId });
      const vmm = await restoreIn(jail, template, source.directory);
      return own(vmm, template, incarnationId);
    } catch (error) {
      await jail?.destroy();
      disown(name);
      uids.release(uid);
      throw restoreFailure(error);
    }
  };

  return {
    backend: 'firecracker',
    accelerator: 'kvm',
    templateKey,
    findTemplate: (key) => findTemplate(templatesDirectory, key),
    buildTemplate: (images: GuestImages, size: MachineSize, progress: BuildProgress) => {
      const key = templateKey(images, size);
      const running = builds.get(key);
      if (running !== undefined) return running;
      const [jailName, uid] = [`template-${key}`, uids.take()];
      owned.add(jailName);
      const build = buildTemplate({
        site,
        jailName,
        uid,
        templatesDirectory,
        key,
        madeBy,
        images,
        size,
        progress,
      }).finally(() => {
        builds.delete(key);
        disown(jailName);
        uids.release(uid);
      });
      builds.set(key, build);
      return build;
    },
    restore,
    adoptSurvivors: async () => {
      const adopted: MicroVm[] = [];
      await mapLimited(await findJails(site.baseDirectory), ADOPTED_AT_ONCE, async (place) => {
        const { name } = place;
        const incarnationId = incarnationOf(name);
        const jail = owned.has(name) || incarnationId === undefined ? undefined : await Jail.find(site, place);
        const found = jail && (await adopt(jail, templatesDirectory));
        if (incarnationId === undefined || found === undefined) return;
        owned.add(name);
        uids.claim(found.vmm.jail.record.uid);
        adopted.push(own(found.vmm, found.template, incarnationId));
      });
      return adopted;
    },
    findSnapshot,
    removePartialSnapshots,
    reapLeftovers: () => reapJails(site.baseDirectory, site.parentCgroup, owned),
  };
}

/** Nothing is lost: what made it restores it. */
const ANOTHER_RELEASE =
  'Start the daemon with what made it: INSTAVM_FIRECRACKER_BIN and INSTAVM_JAILER_BIN name another release. Or delete it.';

/** @throws boot_failed, snapshot_incompatible */
async function templateOf(
  source: Template | VmSnapshot,
  templatesDirectory: string,
  madeBy: string,
): Promise<Template> {
  if ('key' in source) {
    if (source.backend === 'firecracker') return source;
    throw new InstaVMError('boot_failed', `a ${source.backend} template cannot be restored by Firecracker`);
  }
  const isOurs = source.backend === 'firecracker';
  const template = isOurs ? await findTemplate(templatesDirectory, source.templateKey) : undefined;
  if (template?.madeBy === madeBy) {
    checkBuilding(source, template);
    return template;
  }
  const maker = template?.madeBy ?? source.backend;
  const why =
    isOurs && template === undefined
      ? 'what the snapshot was made from is not on this host'
      : `the snapshot was made by ${maker}, and this daemon runs ${madeBy}`;
  throw new InstaVMError('snapshot_incompatible', why, {
    details: { backend: source.backend, accelerator: source.accelerator },
    hint: isOurs ? ANOTHER_RELEASE : 'Start the daemon with the backend that made it (INSTAVM_VMM), or delete it.',
  });
}

/** @param stateDirectory the template's own, or a snapshot's */
async function restoreIn(jail: Jail, template: Template, stateDirectory: string): Promise<FirecrackerProcess> {
  await jail.linkIn(join(template.directory, FILES.base), FILES.base);
  const isSnapshot = stateDirectory !== template.directory;
  const [memory, delta] = [join(template.directory, FILES.memory), join(stateDirectory, FILES.memoryDelta)];
  const placeMemory = isSnapshot
    ? assembleMemory(jail, memory, delta, memoryBytesOf(template.size))
    : jail.linkIn(memory, FILES.memory);
  const copyOverlay = jail.copyIn(join(stateDirectory, FILES.overlay), FILES.overlay);
  // Both have ended before a failure has the jail removed.
  for (const outcome of await Promise.allSettled([placeMemory, copyOverlay]))
    if (outcome.status === 'rejected') throw outcome.reason;
  await jail.setMemoryBase(isSnapshot ? delta : undefined);
  await jail.linkIn(join(stateDirectory, FILES.deviceState), FILES.deviceState);
  const vmm = await FirecrackerProcess.start(jail, limitsOf(template.size), { keepConsole: false });
  try {
    await vmm.api.put('/snapshot/load', {
      snapshot_path: FILES.deviceState,
      mem_backend: { backend_type: 'File', backend_path: FILES.memory },
      enable_diff_snapshots: true,
      resume_vm: false,
    });
    await confine(vmm);
    await vmm.api.setState('Resumed');
  } catch (cause) {
    const details = { diagnostics: await jail.diagnostics() };
    throw new InstaVMError('boot_failed', `Firecracker could not restore: ${reasonOf(cause)}`, { cause, details });
  }
  // Mapped and read; the names are in the way of the next snapshot.
  for (const file of [FILES.memory, FILES.deviceState]) await jail.remove(file);
  return vmm;
}

/** What has to be so before the guest runs. Idempotent. */
async function confine({ jail, api }: FirecrackerProcess): Promise<void> {
  await jail.lock();
  const rate_limiter = rateLimiterOf(jail.disk);
  for (const drive_id of ['base', 'overlay'] as const)
    await api.patch(`/drives/${drive_id}`, { drive_id, rate_limiter });
}

/** @returns undefined when nothing runs in the jail that answers */
async function adopt(
  jail: Jail,
  templatesDirectory: string,
): Promise<{ readonly vmm: FirecrackerProcess; readonly template: Template } | undefined> {
  const template = await findTemplate(templatesDirectory, jail.record.templateKey as TemplateKey);
  if (template === undefined) return undefined;
  try {
    const vmm = await FirecrackerProcess.adopt(jail);
    if (vmm === undefined) return undefined;
    const { state } = await vmm.api.info();
    // Not started: a restore that was cut short.
    if (state === 'Not started') return undefined;
    await confine(vmm);
    // A daemon that ended in the middle of a snapshot, or of a restore, left it standing.
    for (const file of [FILES.memory, FILES.deviceState]) await jail.remove(file);
    if (state === 'Paused') await vmm.api.setState('Resumed');
    return { vmm, template };
  } catch {
    // One that does not answer is no survivor; it is reaped.
    return undefined;
  }
}

/** The jailer takes letters, digits and hyphens. */
const jailName = (incarnationId: IncarnationId): string => incarnationId.replace('_', '-');
const incarnationOf = (name: string): IncarnationId | undefined => parseIncarnationId(name.replace('-', '_'));

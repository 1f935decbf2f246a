/** Which backend runs the microVMs, as the configuration and the host have it. What another backend left running is ended here: nobody could adopt it. */
import { createHash } from 'node:crypto';
import { join, resolve } from 'node:path';
import type { GuestImages, Vmm, VmmObserver } from '@instavm/core';
import { GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { type FirecrackerVerdict, judgeFirecracker } from '@instavm/vmm/choice';
import { createFirecrackerVmm, reapAllJails } from '@instavm/vmm/firecracker';
import { HostFiles } from '@instavm/vmm/production';
import {
  type Confinement,
  createQemuVmm,
  type DiskLimits,
  locateQemu,
  probeConfinement,
  probeKvm,
  qemuVersion,
  reapQemu,
  strangersAmong,
} from '@instavm/vmm/qemu';
import { InstaVMError } from '@instavm/wire';
import type { Logger } from 'pino';
import type { Config } from './config.ts';
import type { DataDirectory } from './data-directory.ts';
import { removeLeftovers } from './leftovers.ts';
import { checkProduction } from './production.ts';
import { holdAllOf, recordingUses } from './templates/recording.ts';
import type { TemplateUses } from './templates/uses.ts';

type Chosen = { readonly vmm: Vmm; readonly images: GuestImages };
type Directories = Pick<DataDirectory, 'runDirectory' | 'jailsDirectory' | 'snapshotsDirectory'>;

const HASH_DIGITS = 12;

/** @throws InstaVMError, MissingGuestImages: what is missing, and what to do */
export async function chooseVmm(
  config: Config,
  directories: Directories,
  uses: TemplateUses,
  logger: Logger,
  observer: VmmObserver,
): Promise<Chosen> {
  const { runDirectory } = directories;
  const locate = (): Promise<GuestImages> =>
    locateGuestImages({ cacheDirectory: config.INSTAVM_CACHE_DIR, agentPath: GUEST_AGENT_PATH });
  let verdict: Promise<FirecrackerVerdict> | undefined;
  const judge = (): Promise<FirecrackerVerdict> => {
    verdict ??= locate().then((images) => judgeFor(config, images, logger));
    return verdict;
  };
  if (config.INSTAVM_PRODUCTION === 'on') await checkProduction(config, new HostFiles(), judge);
  if (config.INSTAVM_VMM === 'fake') {
    const { createFakeVmm, fakeImages } = await import('@instavm/vmm/fake');
    logger.warn('the fake VMM runs no guest and isolates nothing: for tests only');
    return { vmm: createFakeVmm({ runDirectory, agentPath: GUEST_AGENT_PATH }), images: fakeImages };
  }
  const images = await locate();
  const firecracker = await firecrackerVmm(config, directories, { judge, observer, logger });
  const vmm = firecracker ?? (await qemuVmm(config, directories, images, logger));
  await holdAllOf(directories, uses);
  return { vmm: recordingUses(vmm, uses, () => removeLeftovers(config, logger)), images };
}

/** Relative to the mount of cgroup v2; another for every data directory. */
export function parentCgroupOf(dataDirectory: string): string {
  return `instavm-${createHash('sha256').update(resolve(dataDirectory)).digest('hex').slice(0, HASH_DIGITS)}`;
}

async function judgeFor(config: Config, images: GuestImages, logger: Logger): Promise<FirecrackerVerdict> {
  if (config.INSTAVM_ACCELERATOR === 'tcg')
    return { usable: false, why: 'INSTAVM_ACCELERATOR is tcg', remedy: 'Leave INSTAVM_ACCELERATOR out.' };
  const host = {
    images,
    binaries: { firecracker: config.INSTAVM_FIRECRACKER_BIN, jailer: config.INSTAVM_JAILER_BIN },
    cacheDirectory: config.INSTAVM_CACHE_DIR,
    dataDirectory: config.INSTAVM_DATA_DIR,
    probe: config.INSTAVM_ACCELERATOR === 'auto',
  };
  return judgeFirecracker(host, (message) => logger.info(message));
}

type FirecrackerParts = {
  readonly judge: () => Promise<FirecrackerVerdict>;
  readonly observer: VmmObserver;
  readonly logger: Logger;
};

/** @returns undefined when it is not to be used. @throws boot_failed when it must be, and cannot */
async function firecrackerVmm(
  config: Config,
  { runDirectory, jailsDirectory }: Directories,
  { judge, observer, logger }: FirecrackerParts,
): Promise<Vmm | undefined> {
  const wanted = config.INSTAVM_VMM;
  if (wanted === 'qemu') return undefined;
  const verdict = await judge();
  if (!verdict.usable) {
    const { why, remedy } = verdict;
    if (wanted === 'firecracker')
      throw new InstaVMError('boot_failed', `Firecracker cannot be used here: ${why}`, { hint: remedy });
    logger.info({ why, remedy }, 'QEMU runs the microVMs, not Firecracker');
    return undefined;
  }
  const { binaries, version } = verdict;
  warnOfAnother(await reapQemu(runDirectory, await confinementOf(config, false)), 'QEMU', logger);
  await warnOfStrangers(config, logger);
  logger.info({ version, jailer: binaries.jailer }, 'Firecracker runs the microVMs, each in a jail of its own');
  return createFirecrackerVmm({
    templatesDirectory: join(config.INSTAVM_CACHE_DIR, 'templates'),
    runDirectory: jailsDirectory,
    binaries,
    version,
    uids: config.INSTAVM_VMM_UIDS,
    parentCgroup: parentCgroupOf(config.INSTAVM_DATA_DIR),
    disk: diskLimitsOf(config),
    observer,
  });
}

async function qemuVmm(
  config: Config,
  { runDirectory, jailsDirectory }: Directories,
  images: GuestImages,
  logger: Logger,
): Promise<Vmm> {
  const { INSTAVM_CACHE_DIR: cacheDirectory, INSTAVM_ACCELERATOR: wanted } = config;
  const binary = await locateQemu(config.INSTAVM_QEMU_BIN);
  const detect = (): Promise<'kvm' | 'tcg'> => detectAccelerator(images, cacheDirectory, binary, logger);
  const accelerator = wanted === 'auto' ? await detect() : wanted;
  if (accelerator === 'tcg') logger.warn('guests are emulated (TCG): slow, and no security boundary; see SECURITY.md');
  const version = await qemuVersion(binary);
  const jails = await reapAllJails(jailsDirectory, parentCgroupOf(config.INSTAVM_DATA_DIR));
  warnOfAnother(jails, 'Firecracker', logger);
  const confinement = await confinementOf(config, accelerator === 'kvm');
  if (confinement.uids !== undefined && confinement.parentCgroup !== undefined) await warnOfStrangers(config, logger);
  for (const part of confinement.missing) logger.warn({ missing: part }, 'this host gives QEMU no complete jail');
  const templatesDirectory = join(cacheDirectory, 'templates');
  const disk = diskLimitsOf(config);
  return createQemuVmm({ templatesDirectory, runDirectory, accelerator, binary, version, confinement, disk });
}

const diskLimitsOf = (config: Config): DiskLimits => ({
  bytesPerSecond: config.INSTAVM_DISK_MB_PER_SECOND * 1e6 || Infinity,
  operationsPerSecond: config.INSTAVM_DISK_IOPS || Infinity,
});

const confinementOf = (config: Config, usesKvm: boolean): Promise<Confinement> =>
  probeConfinement({ uids: config.INSTAVM_VMM_UIDS, parentCgroup: parentCgroupOf(config.INSTAVM_DATA_DIR), usesKvm });

function warnOfAnother(ended: number, backend: string, logger: Logger): void {
  if (ended > 0) logger.warn({ ended, backend }, 'ended microVMs of another backend, which this one cannot take over');
}

async function warnOfStrangers(config: Config, logger: Logger): Promise<void> {
  const pids = await strangersAmong(config.INSTAVM_VMM_UIDS, parentCgroupOf(config.INSTAVM_DATA_DIR));
  if (pids.length === 0) return;
  const remedy = 'Give every daemon of this host a range of its own (INSTAVM_VMM_UIDS).';
  logger.warn(
    { pids, remedy },
    'others have user ids that are for microVMs of this daemon: it is less apart from them',
  );
}

async function detectAccelerator(
  images: GuestImages,
  cacheDirectory: string,
  binary: string,
  logger: Logger,
): Promise<'kvm' | 'tcg'> {
  const verdict = await probeKvm(images, cacheDirectory, (message) => logger.info(message), binary);
  logger.info({ usable: verdict.usable, reason: verdict.reason }, 'KVM');
  return verdict.usable ? 'kvm' : 'tcg';
}

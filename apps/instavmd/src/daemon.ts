/** The daemon put together: the one place where adapters meet. */

import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { DEFAULT_SIZE, type GuestImages, SandboxService, systemClock, Templates, type Vmm } from '@instavm/core';
import { GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { Accounts, openDatabase, sandboxRecords } from '@instavm/store';
import { createQemuVmm, probeKvm, qemuVersion } from '@instavm/vmm/qemu';
import type { Logger } from 'pino';
import { buildApp } from './app.ts';
import type { Config } from './config.ts';
import { createAdministrator, openDataDirectory } from './data-directory.ts';
import { guestConnector } from './guest/guest.ts';

export type Daemon = {
  readonly url: string;
  readonly adminKeyPath: string;
  /** Stops accepting, ends every sandbox, closes the database. A second call joins the first. */
  stop(): Promise<void>;
};

/** @throws ConfigError-like errors of the parts: what is missing, and the command that mends it */
export async function startDaemon(config: Config, logger: Logger): Promise<Daemon> {
  const data = openDataDirectory(config.INSTAVM_DATA_DIR);
  try {
    const { vmm, images } = await chooseVmm(config, data.runDirectory, logger);
    const reaped = await vmm.reapLeftovers();
    if (reaped > 0) logger.warn({ reaped }, 'removed what an earlier daemon left');
    const database = await openDatabase(data.databasePath);
    const accounts = new Accounts(database);
    if (await createAdministrator(accounts, data.adminKeyPath)) {
      logger.info({ path: data.adminKeyPath }, 'first start: wrote the administrator API key');
    }
    const templates = new Templates(vmm, images, (size, step) => logger.info({ ...size }, `template: ${step}`));
    const records = sandboxRecords(database);
    const sandboxes = new SandboxService({
      vmm,
      templates,
      connector: guestConnector,
      records,
      clock: systemClock,
      log: logger,
    });
    const lost = await sandboxes.reconcile();
    if (lost > 0) logger.warn({ lost }, 'sandboxes of an earlier daemon are marked as stopped');
    // No request boots a guest: the default template is there before the first one is taken.
    await templates.get(DEFAULT_SIZE);
    const health = (): Record<string, unknown> => ({ backend: vmm.backend, accelerator: vmm.accelerator });
    const limits = { sandboxesPerAccount: config.INSTAVM_MAX_SANDBOXES };
    const app = await buildApp({ sandboxes, accounts, limits, health }, logger);
    await app.listen({ host: config.INSTAVM_LISTEN.host, port: config.INSTAVM_LISTEN.port });
    const { port } = app.server.address() as AddressInfo;
    const host = config.INSTAVM_LISTEN.host.includes(':')
      ? `[${config.INSTAVM_LISTEN.host}]`
      : config.INSTAVM_LISTEN.host;
    let stopping: Promise<void> | undefined;
    const stop = async (): Promise<void> => {
      try {
        await Promise.allSettled([app.close(), sandboxes.close()]).then(throwFirst);
        await database.destroy();
      } finally {
        data.release();
      }
    };
    return {
      url: `http://${host}:${port}`,
      adminKeyPath: data.adminKeyPath,
      stop: () => {
        stopping ??= stop();
        return stopping;
      },
    };
  } catch (error) {
    data.release();
    throw error;
  }
}

function throwFirst(results: readonly PromiseSettledResult<unknown>[]): void {
  for (const result of results) if (result.status === 'rejected') throw result.reason;
}

async function chooseVmm(
  config: Config,
  runDirectory: string,
  logger: Logger,
): Promise<{ vmm: Vmm; images: GuestImages }> {
  if (config.INSTAVM_VMM === 'fake') {
    const { createFakeVmm, fakeImages } = await import('@instavm/vmm/fake');
    logger.warn('the fake VMM runs no guest and isolates nothing: for tests only');
    return { vmm: createFakeVmm(), images: fakeImages };
  }
  const cacheDirectory = config.INSTAVM_CACHE_DIR;
  const images = await locateGuestImages({ cacheDirectory, agentPath: GUEST_AGENT_PATH });
  const accelerator =
    config.INSTAVM_ACCELERATOR === 'auto'
      ? await detectAccelerator(images, cacheDirectory, logger)
      : config.INSTAVM_ACCELERATOR;
  if (accelerator === 'tcg') logger.warn('guests are emulated (TCG): slow, and no security boundary; see SECURITY.md');
  const version = await qemuVersion();
  const vmm = createQemuVmm({
    templatesDirectory: join(cacheDirectory, 'templates'),
    runDirectory,
    accelerator,
    version,
  });
  return { vmm, images };
}

async function detectAccelerator(images: GuestImages, cacheDirectory: string, logger: Logger): Promise<'kvm' | 'tcg'> {
  const verdict = await probeKvm(images, cacheDirectory, (message) => logger.info(message));
  logger.info({ usable: verdict.usable, reason: verdict.reason }, 'KVM');
  return verdict.usable ? 'kvm' : 'tcg';
}

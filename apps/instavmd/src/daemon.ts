/** The daemon put together: the one place where adapters meet. */
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import {
  CleanupStack,
  DEFAULT_SIZE,
  type GuestImages,
  SandboxService,
  Snapshots,
  systemClock,
  Templates,
  type Vmm,
} from '@instavm/core';
import { GUEST_AGENT_PATH, locateGuestImages } from '@instavm/images';
import { Accounts, openDatabase, sandboxRecords, snapshotRecords } from '@instavm/store';
import { createQemuVmm, probeKvm, qemuVersion } from '@instavm/vmm/qemu';
import { InstaVMError } from '@instavm/wire';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { buildApp } from './app.ts';
import type { Config } from './config.ts';
import { createAdministrator, openDataDirectory } from './data-directory.ts';
import { type Guest, guestConnector } from './guest/guest.ts';
import { PtyTokens } from './pty-tokens.ts';
import { snapshotDirectories } from './snapshot-directories.ts';

export type Daemon = {
  readonly url: string;
  readonly adminKeyPath: string;
  /** Stops accepting, ends every sandbox, closes the database. A second call joins the first. */
  stop(): Promise<void>;
};

/** Answers of commands that the end of their sandbox has just cut short; after that their connections are cut too. */
const LAST_ANSWERS_MS = 2_000;
const RECORDS_KEPT_MS = 30 * 24 * 3_600_000;

/** @throws InstaVMError, MissingGuestImages: what is missing, and the command that mends it */
export async function startDaemon(config: Config, logger: Logger): Promise<Daemon> {
  const cleanup = new CleanupStack();
  try {
    const data = openDataDirectory(config.INSTAVM_DATA_DIR);
    cleanup.push(() => data.release());
    const database = await openDatabase(data.databasePath);
    cleanup.push(() => database.destroy());
    const accounts = new Accounts(database);
    if (await createAdministrator(accounts, data.adminKeyPath)) {
      logger.info({ path: data.adminKeyPath }, 'first start: wrote the administrator API key');
    }
    const { vmm, images } = await chooseVmm(config, data.runDirectory, logger);
    const survivors = await vmm.adoptSurvivors();
    const reaped = await vmm.reapLeftovers();
    if (reaped > 0) logger.warn({ reaped }, 'removed what an earlier daemon left');
    const snapshots = new Snapshots({
      vmm,
      records: snapshotRecords(database),
      directories: await snapshotDirectories(data.snapshotsDirectory, vmm),
      clock: systemClock,
      log: logger,
    });
    const sandboxes = new SandboxService<Guest>({
      vmm,
      snapshots,
      templates: new Templates(vmm, images, (size, step) => logger.info({ ...size }, `template: ${step}`)),
      connector: guestConnector,
      records: sandboxRecords(database),
      clock: systemClock,
      log: logger,
      maxAlivePerAccount: config.INSTAVM_MAX_SANDBOXES,
    });
    const { adopted, lost, pruned } = await sandboxes.reconcile(RECORDS_KEPT_MS, survivors);
    if (adopted > 0) logger.info({ adopted }, 'took over the sandboxes of an earlier daemon');
    if (lost > 0) logger.warn({ lost }, 'sandboxes of an earlier daemon are marked as stopped');
    if (pruned > 0) logger.info({ pruned }, 'forgot sandboxes that ended long ago');
    cleanup.push(expireSnapshots(snapshots, config.INSTAVM_SNAPSHOT_UNUSED_DAYS, logger));
    // No request boots a guest of the default size: its template is there before the first request is taken.
    await sandboxes.prepare(DEFAULT_SIZE);
    const health = (): Record<string, unknown> => ({ backend: vmm.backend, accelerator: vmm.accelerator });
    const app = await buildApp({ sandboxes, snapshots, accounts, ptyTokens: new PtyTokens(), health }, logger);
    cleanup.push(() => stopServing(app, sandboxes, config.INSTAVM_ON_STOP));
    const url = await listen(app, config.INSTAVM_LISTEN);
    return { url, adminKeyPath: data.adminKeyPath, stop: () => cleanup.run() };
  } catch (error) {
    await cleanup.run().catch((cause: unknown) => logger.error({ err: cause }, 'clean-up after a failed start'));
    throw error;
  }
}

/** What the Agents SDK calls the snapshot that it takes at the end of every run (contract §15.6). */
const RUN_SNAPSHOT_PREFIX = 'sandbox-';
const EXPIRY_INTERVAL_MS = 3_600_000;

/** Now and every hour. @returns a function that ends it */
function expireSnapshots(snapshots: Snapshots, unusedDays: number, logger: Logger): () => void {
  const expire = (): void => {
    snapshots
      .expire(RUN_SNAPSHOT_PREFIX, unusedDays * 24 * 3_600_000)
      .catch((error: unknown) => logger.warn({ err: error }, 'deleting unused snapshots'));
  };
  expire();
  const timer = setInterval(expire, EXPIRY_INTERVAL_MS);
  return () => clearInterval(timer);
}

/** No new connections; sandboxes end or are left, and requests that use them still get their answer. */
async function stopServing(
  app: FastifyInstance,
  sandboxes: SandboxService<Guest>,
  onStop: Config['INSTAVM_ON_STOP'],
): Promise<void> {
  const closed = app.close();
  const ended = onStop === 'keep' ? sandboxes.leave() : sandboxes.close();
  await ended.catch(() => {});
  const cut = setTimeout(() => app.server.closeAllConnections(), LAST_ANSWERS_MS);
  await closed.finally(() => clearTimeout(cut));
  await ended;
}

async function listen(app: FastifyInstance, { host, port }: Config['INSTAVM_LISTEN']): Promise<string> {
  try {
    await app.listen({ host, port });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EADDRINUSE' && code !== 'EACCES' && code !== 'EADDRNOTAVAIL') throw error;
    throw new InstaVMError('conflict', `cannot listen on ${host}:${port} (${code})`, {
      cause: error,
      hint: 'Stop what listens there, or set INSTAVM_LISTEN to another host:port.',
    });
  }
  const address = app.server.address() as AddressInfo;
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`;
}

async function chooseVmm(
  config: Config,
  runDirectory: string,
  logger: Logger,
): Promise<{ vmm: Vmm; images: GuestImages }> {
  if (config.INSTAVM_VMM === 'fake') {
    const { createFakeVmm, fakeImages } = await import('@instavm/vmm/fake');
    logger.warn('the fake VMM runs no guest and isolates nothing: for tests only');
    return { vmm: createFakeVmm({ runDirectory, agentPath: GUEST_AGENT_PATH }), images: fakeImages };
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

/** The daemon put together: the one place where adapters meet. */
import type { AddressInfo } from 'node:net';
import { availableParallelism } from 'node:os';
import {
  CleanupStack,
  Credit,
  DEFAULT_SIZE,
  Domains,
  EgressJournal,
  Meter,
  SandboxService,
  Shares,
  type Step,
  type StepObserver,
  systemClock,
  Templates,
} from '@instavm/core';
import { domainNameProblem } from '@instavm/preview';
import {
  Accounts,
  ApiKeys,
  AuditWriter,
  auditTrail,
  domainRecords,
  egressLog as egressLogIn,
  ledger as ledgerIn,
  ledgerReader,
  openDatabase,
  sandboxRecords,
  shareRecords,
  snapshotRecords,
} from '@instavm/store';
import type { FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { nobodysTimers, presentActor } from './acting.ts';
import { buildApp } from './app.ts';
import { Audit, News } from './audit.ts';
import { chooseVmm } from './choose-vmm.ts';
import { trustedProxies } from './client-address.ts';
import type { Config } from './config.ts';
import { createAdministrator, openDataDirectory, signInSecret } from './data-directory.ts';
import { domainCertificates, domainHealthOf, txtLookUp } from './domains.ts';
import { createGateway, egressRules } from './egress.ts';
import { type Guest, guestConnector } from './guest/guest.ts';
import { hostResources } from './host-resources.ts';
import { KeyConnections } from './key-connections.ts';
import { removeLeftovers } from './leftovers.ts';
import { listening } from './listening.ts';
import { metering, quotasIn, ratesOf } from './metering.ts';
import { Metrics } from './operations/metrics.ts';
import { operationsOf } from './operations/operations.ts';
import { telemetry } from './operations/telemetry.ts';
import { untraced } from './operations/tracing.ts';
import { vmmObserver } from './operations/vmm-observer.ts';
import { listenForPreviews } from './previews.ts';
import { PtyTokens } from './pty-tokens.ts';
import { QuotaBook } from './quota-book.ts';
import { RateLimits } from './rate-limits.ts';
import { Attempts } from './sign-in/attempts.ts';
import { Pairings } from './sign-in/pairings.ts';
import { SignIns } from './sign-in/sign-ins.ts';
import { snapshotFiles } from './snapshot-files.ts';
import { TemplateUses } from './templates/uses.ts';
import { both, guestNumbers } from './usage-samples/asking.ts';
import { UsageSampler } from './usage-samples/sampler.ts';

/** One that is stuck until its deadline does not stop all others. */
const LEAST_RESTORED_AT_ONCE = 2;

export type Daemon = {
  readonly url: string;
  readonly adminKeyPath: string;
  /** Stops accepting, ends or leaves every sandbox, closes the database. A second call joins the first. */
  stop(): Promise<void>;
};

/** Answers of commands that the end of their sandbox has just cut short; after that their connections are cut too. */
const LAST_ANSWERS_MS = 2_000;
const DAY_MS = 24 * 3_600_000;
const RECORDS_KEPT_MS = 30 * DAY_MS;
const SWEEP_INTERVAL_MS = 3_600_000;
/** The name that the Agents SDK gives to the snapshot after every run (contract §15.6). */
const AUTOMATIC_SNAPSHOT = 'sandbox-';

/** @throws InstaVMError, MissingGuestImages: what is missing, and the command that mends it */
export async function startDaemon(config: Config, logger: Logger): Promise<Daemon> {
  const cleanup = new CleanupStack();
  try {
    const data = openDataDirectory(config.INSTAVM_DATA_DIR);
    cleanup.push(() => data.release());
    await removeLeftovers(config, logger);
    const database = await openDatabase(data.databasePath);
    cleanup.push(() => database.destroy());
    const news = new News();
    const writer = new AuditWriter(presentActor, (accountId) => news.tell(accountId));
    const accounts = new Accounts(database, writer);
    if (await createAdministrator(accounts, data.adminKeyPath)) {
      logger.info({ path: data.adminKeyPath }, 'first start: wrote the administrator API key');
    }
    const clock = untraced(nobodysTimers(systemClock));
    const keys = new ApiKeys(database, writer);
    const records = sandboxRecords(database, writer);
    const trail = auditTrail(database, writer);
    const audit = new Audit({ trail, news, accounts, keys, sandboxes: records, clock, log: logger });
    cleanup.push(() => audit.stop());
    cleanup.push(audit.keepBounded({ days: config.INSTAVM_AUDIT_DAYS, events: config.INSTAVM_AUDIT_EVENTS }));
    const egressLog = audit.watching(egressLogIn(database));
    const egressJournal = new EgressJournal(egressLog, clock, logger);
    cleanup.push(() => egressJournal.stop());
    const metrics = new Metrics();
    const quotas = new QuotaBook(accounts, quotasIn(config));
    const ledger = ledgerIn(database, writer);
    const rates = ratesOf(config);
    const meter = new Meter({ store: ledger, rates, clock, log: logger });
    await meter.load();
    const credit = new Credit({
      ...{ ledger, meter, clock, log: logger },
      isEnforced: config.INSTAVM_CREDIT === 'enforce',
      welcomeMicroDollars: config.INSTAVM_CREDIT_WELCOME,
    });
    const sampler: UsageSampler = new UsageSampler({
      clock,
      ask: (record) => guestNumbers(sandboxes, record),
    });
    const gateway = createGateway(
      config,
      {
        record: (sandboxId, record) => {
          egressJournal.record(sandboxId, record);
          metrics.egress(record);
        },
        sent: (sandboxId, bytes) => {
          meter.sent(sandboxId, bytes);
          metrics.sent(bytes);
          sampler.count(sandboxId, 'egressSentBytes', bytes);
        },
        received: (sandboxId, bytes) => sampler.count(sandboxId, 'egressReceivedBytes', bytes),
      },
      logger,
    );
    const uses = new TemplateUses(config.INSTAVM_CACHE_DIR, config.INSTAVM_DATA_DIR);
    cleanup.push(uses.keepFresh((err) => logger.warn({ err }, 'the use of templates could not be recorded anew')));
    const { vmm, images } = await chooseVmm(config, data, uses, logger, vmmObserver(metrics, logger));
    const host = hostResources(config.INSTAVM_DATA_DIR);
    const templates = new Templates(vmm, images, (size, step) => logger.info({ ...size }, `template: ${step}`));
    const sandboxes: SandboxService<Guest> = new SandboxService<Guest>({
      vmm,
      templates,
      connector: guestConnector,
      egress: gateway,
      records,
      snapshots: snapshotRecords(database, writer),
      files: snapshotFiles(data.snapshotsDirectory, vmm),
      host,
      limits: {
        memoryReserveMib: config.INSTAVM_MEMORY_RESERVE_MB,
        diskReserveMib: config.INSTAVM_DISK_RESERVE_MB,
      },
      restoredAtOnce: Math.max(LEAST_RESTORED_AT_ONCE, availableParallelism()),
      warmPool: { size: DEFAULT_SIZE, depth: config.INSTAVM_WARM_POOL },
      clock,
      log: logger,
      usage: both(meter, sampler),
      actor: presentActor,
      spending: credit,
      quotas,
      reached: crashingAt(config.INSTAVM_CRASH_AT),
      telemetry: telemetry(metrics),
    });
    const recovered = await sandboxes.recover(RECORDS_KEPT_MS);
    logger.info(recovered, 'took over from the daemon before');
    await meter.takeOver(records);
    for (const record of await records.listUnsettled()) if (record.state === 'running') sampler.began(record);
    sampler.start();
    cleanup.push(() => sampler.stop());
    // After the last sandbox has ended.
    cleanup.push(() => meter.tick());
    cleanup.push(metering({ meter, credit, sandboxes, audit }, config.INSTAVM_METER_SECONDS * 1000));
    // No request boots a guest of the default size: its template is there before the first request is taken.
    await sandboxes.prepare(DEFAULT_SIZE);
    const egress = { egress: egressRules(gateway), egressLog, egressJournal };
    const shares = new Shares({ shares: shareRecords(database, writer), sandboxes: records, clock });
    const domainsKept = domainRecords(database, writer);
    const keyConnections = new KeyConnections();
    cleanup.push(() => keyConnections.stop());
    const previewParts = { sampler, keyConnections, shares, sandboxes, keys, domains: domainsKept };
    const previews = await listenForPreviews(config, data.previewDirectory, previewParts, logger);
    cleanup.push(() => previews?.close());
    const observed = { vmm, templates, sandboxes, meter, host, previews, metrics };
    const operations = operationsOf({ config, database, ...observed });
    const certificates = domainCertificates(previews, config.INSTAVM_PREVIEW_CERT);
    const domains = new Domains({
      domains: domainsKept,
      shares,
      lookUpTxt: txtLookUp(config.INSTAVM_DOMAIN_DNS_SERVERS),
      certificates,
      problemOf: (name) => domainNameProblem(name, config.INSTAVM_PREVIEW_DOMAIN),
      clock,
      log: logger,
    });
    cleanup.push(() => domains.close());
    const domainHealth = domainHealthOf(previews, config.INSTAVM_PREVIEW_LISTEN, certificates);
    const publicUrl = config.INSTAVM_PUBLIC_URL;
    const people = {
      signIns: new SignIns(accounts, { database, secret: signInSecret(data.signInSecretPath), publicUrl }),
      signUpMode: config.INSTAVM_SIGN_UP,
      attempts: new Attempts(),
      pairings: new Pairings(),
      publicUrl,
    };
    const services = {
      ...{ sandboxes, accounts, audit, keys, keyConnections, people, ptyTokens: new PtyTokens(), ...egress },
      ...{ shares, previews, domains, domainHealth, quotas, rateLimits: new RateLimits(quotas) },
      trustedProxies: trustedProxies(config.INSTAVM_TRUSTED_PROXIES),
      ...{ operations, sampler, credit, meter, rates, usage: ledgerReader(database) },
    };
    const app = await buildApp(services, logger);
    app.addHook('preClose', async () => {
      egressJournal.endFollowers();
      news.end();
    });
    // Nothing of the fake outlives its daemon.
    const fate = vmm.backend === 'fake' ? 'end' : config.INSTAVM_ON_STOP;
    cleanup.push(() => stopServing(app, sandboxes, fate));
    if (config.INSTAVM_SNAPSHOT_UNUSED_DAYS > 0)
      cleanup.push(expireSnapshots(sandboxes, config.INSTAVM_SNAPSHOT_UNUSED_DAYS * DAY_MS, logger));
    const url = await listen(app, config.INSTAVM_LISTEN);
    cleanup.push(() => operations.readiness.stopping());
    sandboxes.warmUp();
    if (previews !== undefined) await domains.resume();
    return { url, adminKeyPath: data.adminKeyPath, stop: () => cleanup.run() };
  } catch (error) {
    await cleanup.run().catch((cause: unknown) => logger.error({ err: cause }, 'clean-up after a failed start'));
    throw error;
  }
}

/** No new connections; sandboxes end or are let go, and with that the requests that use them end, which still get their answer. */
async function stopServing(
  app: FastifyInstance,
  sandboxes: SandboxService<Guest>,
  fate: 'keep' | 'end',
): Promise<void> {
  const ended = sandboxes.close(fate);
  const closed = app.close();
  await ended.catch(() => {});
  const cut = setTimeout(() => app.server.closeAllConnections(), LAST_ANSWERS_MS);
  await closed.finally(() => clearTimeout(cut));
  const left = await ended;
  if (left > 0) app.log.warn({ left }, 'sandboxes stay running for the next daemon of this data directory');
}

/** @returns how to stop */
function expireSnapshots(sandboxes: SandboxService<Guest>, unusedMs: number, logger: Logger): () => void {
  const sweep = async (): Promise<void> => {
    const expired = await sandboxes.snapshots.expire(AUTOMATIC_SNAPSHOT, unusedMs);
    if (expired > 0) logger.info({ expired }, 'deleted automatic snapshots that nobody used');
  };
  const run = (): void => void sweep().catch((err: unknown) => logger.warn({ err }, 'expiring snapshots'));
  run();
  const timer = setInterval(run, SWEEP_INTERVAL_MS);
  return () => clearInterval(timer);
}

/** For tests: SIGKILL leaves no time for anything, as a real crash. */
const crashingAt =
  (fatal: Step | undefined): StepObserver =>
  (step) => {
    if (step === fatal) process.kill(process.pid, 'SIGKILL');
  };

async function listen(app: FastifyInstance, at: Config['INSTAVM_LISTEN']): Promise<string> {
  const setting = 'INSTAVM_LISTEN to another host:port';
  await listening(app.listen(at), 'listen', { ...at, setting });
  const address = app.server.address() as AddressInfo;
  return `http://${address.family === 'IPv6' ? `[${address.address}]` : address.address}:${address.port}`;
}

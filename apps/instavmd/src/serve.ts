/** The daemon as a process: starts it, tells the service manager, and stops it on SIGTERM or SIGINT. */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Config, serviceManagerOf, tracingOf } from './config.ts';
import { startDaemon } from './daemon.ts';
import { createLogger } from './log.ts';
import { ServiceManager } from './operations/service-manager.ts';
import { startTracing } from './operations/tracing.ts';

/** Ending twenty sandboxes takes about a second; what is not done by then is reaped by the next start. */
const STOP_DEADLINE_MS = 20_000;
/** A collector that does not answer keeps an ending daemon no longer than this. */
const LAST_SPANS_MS = 5_000;

/** Resolves when it serves. @throws as `startDaemon` */
export async function serve(config: Config): Promise<void> {
  const logger = await createLogger(config);
  const serviceManager = new ServiceManager(serviceManagerOf(process.env), logger);
  const stopTracing = await startTracing(tracingOf(process.env));
  /** Never rejects: that nobody takes them is no reason to have ended uncleanly. */
  const sendLastSpans = (): Promise<void> =>
    Promise.race([stopTracing(), sleep(LAST_SPANS_MS)]).catch((err: unknown) =>
      logger.warn({ err }, 'the last spans could not be sent'),
    );
  const starting = startDaemon(config, logger);
  let started = false;
  let asked = false;
  const stop = (signal: string): void => {
    if (asked) process.exit(1);
    // Nothing has been promised to anyone yet; what is being made ends with this process.
    if (!started) process.exit(0);
    asked = true;
    logger.info({ signal }, 'stopping; a second signal forces it');
    setTimeout(() => process.exit(1), STOP_DEADLINE_MS).unref();
    Promise.all([starting.then((daemon) => daemon.stop()).finally(sendLastSpans), serviceManager.stopping()]).then(
      () => process.exit(0),
      (error: unknown) => {
        logger.error({ err: error }, 'the daemon did not stop cleanly');
        process.exit(1);
      },
    );
  };
  process.on('SIGTERM', stop).on('SIGINT', stop);
  const { url } = await starting;
  started = true;
  logger.info({ url }, `listening on ${url}`);
  await serviceManager.ready(`listening on ${url}`);
}

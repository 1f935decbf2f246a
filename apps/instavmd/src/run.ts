/** Runs the daemon: reads the configuration, starts it, and stops it on SIGTERM or SIGINT. */
import { InstaVMError } from '@instavm/wire';
import { pino } from 'pino';
import { ConfigError, parseConfig, serviceManagerOf } from './config.ts';
import { startDaemon } from './daemon.ts';
import { requestSerializer } from './log.ts';
import { ServiceManager } from './service-manager.ts';

/** Ending twenty sandboxes takes about a second; what is not done by then is reaped by the next start. */
const STOP_DEADLINE_MS = 20_000;

try {
  const config = parseConfig(process.env);
  const logger = pino({ level: config.INSTAVM_LOG_LEVEL, serializers: { req: requestSerializer } });
  const serviceManager = new ServiceManager(serviceManagerOf(process.env), logger);
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
    Promise.all([starting.then((daemon) => daemon.stop()), serviceManager.stopping()]).then(
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
} catch (error) {
  const isForPeople =
    error instanceof ConfigError || error instanceof InstaVMError || (error as Error).name === 'MissingGuestImages';
  console.error(isForPeople ? `instavmd: ${(error as Error).message}` : error);
  if (error instanceof InstaVMError) console.error(error.hint);
  process.exit(1);
}

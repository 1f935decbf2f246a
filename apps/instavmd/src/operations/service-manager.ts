/**
 * What systemd is told (sd_notify(3)): that the daemon is ready, that it lives, that it stops. Node has no datagram sockets of
 * the file system, so `systemd-notify` says it; where no service manager listens, nothing is said and nothing runs.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Logger } from 'pino';

/** From the environment that the service manager gives. */
export type ServiceManagerEnvironment = {
  /** NOTIFY_SOCKET */
  readonly notifySocket: string;
  /** WATCHDOG_USEC; undefined: nobody watches. */
  readonly watchdogMs: number | undefined;
};

const NOTIFY_DEADLINE_MS = 5_000;
const NOTIFY = 'systemd-notify';

export class ServiceManager {
  readonly #environment: ServiceManagerEnvironment | undefined;
  readonly #log: Pick<Logger, 'warn'>;
  #timer: NodeJS.Timeout | undefined;

  constructor(environment: ServiceManagerEnvironment | undefined, log: Pick<Logger, 'warn'>) {
    this.#environment = environment;
    this.#log = log;
  }

  /** It serves. From here on it says that it lives: at half the time after which it is taken for dead, and only while its event loop turns. */
  async ready(status: string): Promise<void> {
    await this.#tell('--ready', `--status=${status}`);
    const { watchdogMs } = this.#environment ?? {};
    if (watchdogMs === undefined) return;
    this.#timer = setInterval(() => void this.#tell('WATCHDOG=1'), watchdogMs / 2);
    this.#timer.unref();
  }

  async stopping(): Promise<void> {
    clearInterval(this.#timer);
    await this.#tell('STOPPING=1');
  }

  /** Never rejects: a service manager that cannot be told is no reason not to serve. */
  async #tell(...news: readonly string[]): Promise<void> {
    if (this.#environment === undefined) return;
    const { notifySocket } = this.#environment;
    const env = { NOTIFY_SOCKET: notifySocket, PATH: '/usr/local/bin:/usr/bin:/bin' };
    try {
      await promisify(execFile)(NOTIFY, [...news], { env, timeout: NOTIFY_DEADLINE_MS });
    } catch (err) {
      this.#log.warn({ err, news }, 'the service manager could not be told');
    }
  }
}

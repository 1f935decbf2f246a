/** Everything that a clone needs before it can run microVMs. Idempotent: finished steps are recognised and skipped. */
import { join } from 'node:path';
import { defaultCacheDirectory, ensureGuestImages, GUEST_AGENT_PATH, guestImagesNeedDownload } from '@instavm/images';
import { buildAcmeServers } from './acme-servers.ts';
import { buildDashboard } from './dashboard.ts';
import { installBrowser, installDebianPackages } from './debian-packages.ts';
import { buildGuestAgent } from './guest-agent.ts';
import { packGuestPrograms } from './guest-programs.ts';
import { withLock } from './lock.ts';
import { makePythonEnvironments } from './python-environments.ts';
import { Reporter } from './report.ts';

export type SetupOptions = {
  /** Also make the Python environments that tests and the demo use. */
  readonly python: boolean;
  /** Also what only tests need; goes with `python`. */
  readonly tests?: boolean;
  /** Report as JSON lines. */
  readonly json?: boolean;
};

/** SIGINT and SIGTERM end the step under way and its programs; the next setup takes up there. */
export async function setup(options: SetupOptions): Promise<void> {
  const reporter = new Reporter({ json: options.json ?? false });
  const location = { cacheDirectory: defaultCacheDirectory(process.env), agentPath: GUEST_AGENT_PATH };
  const stop = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => stop.abort(new SetupInterrupted(name));
  process.on('SIGINT', onSignal).on('SIGTERM', onSignal);
  try {
    const onWait = (): void => console.log('Waiting for another setup on this machine to finish …');
    const { signal } = stop;
    const steps = async (): Promise<void> => {
      await reporter.step('Debian packages', async (progress) =>
        installDebianPackages(progress, await guestImagesNeedDownload(location), signal),
      );
      await reporter.step('guest agent', (progress) => buildGuestAgent(progress, signal));
      await reporter.step('dashboard', (progress) => buildDashboard(progress, signal));
      await reporter.step('guest images', async (progress) => {
        await ensureGuestImages(location, progress, signal);
        return 'ready';
      });
      if (options.python) await reporter.step('Python', (progress) => makePythonEnvironments(progress, signal));
      if (options.tests) {
        const { cacheDirectory } = location;
        await reporter.step('ACME servers', (progress) => buildAcmeServers(cacheDirectory, progress, signal));
        await reporter.step('browser', (progress) => installBrowser(progress, signal));
        await reporter.step('programs for guests', (progress) => packGuestPrograms(progress, signal));
      }
    };
    await withLock(join(location.cacheDirectory, 'setup.lock'), onWait, steps, signal);
  } catch (error) {
    // An aborted program reports how it ended; why it was aborted says more.
    stop.signal.throwIfAborted();
    throw error;
  } finally {
    process.off('SIGINT', onSignal).off('SIGTERM', onSignal);
  }
}

export class SetupInterrupted extends Error {
  override readonly name = 'SetupInterrupted';

  constructor(signal: string) {
    super(`setup was interrupted by ${signal}; the next run continues with the step it was in`);
  }
}

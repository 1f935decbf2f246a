/** A daemon whose custom domains get their certificates from Pebble, and are proven in its DNS. Its sandboxes are fakes: their ports are those of this host. */
import { freePorts } from './free-ports.ts';
import { Pebble } from './pebble.ts';
import { startTestDaemon, type TestDaemon } from './test-daemon.ts';

export class AcmeDaemon {
  readonly pebble: Pebble;
  /** Of the preview listener. */
  readonly previewPort: number;
  /** PEM of the root that certificates of custom domains lead to. */
  readonly root: string;
  #daemon: TestDaemon | undefined;

  static async start(): Promise<AcmeDaemon> {
    const [previewPort = 0] = await freePorts(1);
    const pebble = await Pebble.start({ tlsPort: previewPort });
    try {
      const started = new AcmeDaemon(pebble, previewPort, await pebble.root());
      started.#daemon = await startTestDaemon({ vmm: 'fake', env: started.#env });
      return started;
    } catch (error) {
      await pebble.stop();
      throw error;
    }
  }

  private constructor(pebble: Pebble, previewPort: number, root: string) {
    this.pebble = pebble;
    this.previewPort = previewPort;
    this.root = root;
  }

  get daemon(): TestDaemon {
    if (this.#daemon === undefined) throw new Error('the daemon is stopped');
    return this.#daemon;
  }

  /** Another one takes over after a crash. */
  async crashAndRestart(): Promise<void> {
    const { dataDirectory } = this.daemon;
    await this.daemon.crash();
    this.#daemon = await startTestDaemon({ vmm: 'fake', env: this.#env, dataDirectory });
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop().finally(() => this.pebble.stop());
  }

  get #env(): Record<string, string> {
    return {
      INSTAVM_PREVIEW_LISTEN: `127.0.0.1:${this.previewPort}`,
      INSTAVM_ACME_DIRECTORY: this.pebble.directoryUrl,
      INSTAVM_ACME_CA: this.pebble.caPath,
      INSTAVM_DOMAIN_DNS_SERVERS: this.pebble.dns,
    };
  }
}

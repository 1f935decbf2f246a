/** A daemon whose outside is `outside.ts`, and sandboxes in which `probe.py` tries things. */
import { readFileSync } from 'node:fs';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { InstaVM, type Sandbox } from 'instavm';
import { Outside, SITE_CIDRS } from './outside.ts';

const PROBE = readFileSync(new URL('./probe.py', import.meta.url));
const PROBE_PATH = '/root/probe.py';

/** As on the wire. */
export type Policy = {
  allow_http: boolean;
  allow_https: boolean;
  allow_public_repos: boolean;
  allowed_domains: string[];
  allowed_cidrs: string[];
};
export const NOTHING: Policy = {
  allow_http: false,
  allow_https: false,
  allow_public_repos: false,
  allowed_domains: [],
  allowed_cidrs: [],
};

/** A row of the log. */
export type Entry = {
  id: number;
  kind: string;
  host: string;
  port: number | null;
  address: string | null;
  allowed: boolean;
  rule: string;
  outcome: string;
  reason: string | null;
  bytes_sent: number;
  bytes_received: number;
  repeated: number;
};

/** `ms` is what it took in the guest. */
export type Outcome = { result: unknown; ms: number };
/** A function of `probe.py`, and its arguments. */
export type Probe = readonly [name: string, ...args: unknown[]];

export class World {
  readonly outside: Outside;
  readonly daemon: TestDaemon;
  readonly client: InstaVM;

  private constructor(outside: Outside, daemon: TestDaemon) {
    this.outside = outside;
    this.daemon = daemon;
    this.client = new InstaVM({ apiKey: daemon.apiKey, baseUrl: daemon.baseUrl });
  }

  /** @param env further settings, which may depend on the outside */
  static async open(env: (outside: Outside) => Record<string, string> = () => ({})): Promise<World> {
    const outside = await Outside.open();
    try {
      const own = { INSTAVM_EGRESS_DNS: outside.dnsServer, INSTAVM_EGRESS_SITE_CIDRS: SITE_CIDRS };
      return new World(outside, await startTestDaemon({ vmm: 'qemu', env: { ...own, ...env(outside) } }));
    } catch (error) {
      outside.close();
      throw error;
    }
  }

  async sandbox(): Promise<Sandbox> {
    const sandbox = await this.client.sandboxes.create({ ttlSeconds: 1800 });
    await sandbox.files.write(PROBE_PATH, PROBE);
    return sandbox;
  }

  /** @throws for any answer but a success */
  async api<T>(method: string, path: string, body?: unknown): Promise<T> {
    const sent = body === undefined ? {} : { body: JSON.stringify(body) };
    const headers = {
      'x-api-key': this.daemon.apiKey,
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
    const answer = await fetch(this.daemon.baseUrl + path, { method, headers, ...sent });
    if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${await answer.text()}`);
    return (await answer.json()) as T;
  }

  setPolicy({ id }: { readonly id: string }, policy: Partial<Policy>): Promise<unknown> {
    return this.api('POST', `/v1/egress/session/${id}`, { ...NOTHING, ...policy });
  }

  /** Oldest first. */
  async log({ id }: { readonly id: string }, query = ''): Promise<Entry[]> {
    const path = `/v2/sandboxes/${id}/egress/log?limit=1000${query}`;
    return (await this.api<{ entries: Entry[] }>('GET', path)).entries;
  }

  /** One Python for all of them, one after the other. */
  async probe(sandbox: Sandbox, probes: readonly Probe[], timeoutMs = 100_000): Promise<Outcome[]> {
    const argv = ['python3', PROBE_PATH, JSON.stringify(probes)];
    const { exitCode, stdoutText, stderrText } = await sandbox.run(argv, { timeoutMs });
    if (exitCode !== 0) throw new Error(`the probe failed (${exitCode}): ${stderrText}`);
    return JSON.parse(stdoutText) as Outcome[];
  }

  /** Also asserts that nothing of the daemon is left. */
  async close(): Promise<void> {
    this.client.close();
    try {
      await this.daemon.stop();
    } finally {
      this.outside.close();
    }
  }
}

/** The client: one server, one key, its sandboxes. */
import { Audit } from './audit.ts';
import { Credit } from './credit.ts';
import { Domains } from './domains.ts';
import { type EgressPolicy, wirePolicy } from './egress.ts';
import { InstaVMError } from './errors.ts';
import { HttpClient } from './http.ts';
import { ApiKeys } from './keys.ts';
import { Quotas } from './quotas.ts';
import { Sandbox, type SandboxInfo, sandboxInfo } from './sandbox.ts';
import { Shares } from './shares.ts';
import { Snapshots } from './snapshots.ts';

export const DEFAULT_BASE_URL = 'http://127.0.0.1:8787';

export type ClientOptions = {
  /** Default: `INSTAVM_API_KEY`. */
  readonly apiKey?: string | undefined;
  /** Default: `INSTAVM_BASE_URL`, else `http://127.0.0.1:8787`. */
  readonly baseUrl?: string | undefined;
};

export type CreateOptions = {
  /** Rounded up to the next size the server has; never less than asked. */
  readonly memoryMb?: number | undefined;
  readonly vcpuCount?: 1 | 2 | 4 | 6 | 8 | undefined;
  /** Lifetime, 20 to 86400 seconds; default 300. */
  readonly ttlSeconds?: number | undefined;
  readonly metadata?: Readonly<Record<string, unknown>> | undefined;
  /** Environment of every command. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Outbound access from the first packet on; when left out the snapshot's, else the server's default. */
  readonly egress?: EgressPolicy | undefined;
  /** Begins there: memory, processes, terminals and disk. The size, and what else is not given, are the snapshot's. */
  readonly snapshotId?: string | undefined;
  /** At the end of its lifetime it is suspended instead of ended. */
  readonly autoSuspend?: boolean | undefined;
  /** Whatever uses it wakes it when it is suspended; true when left out. */
  readonly autoResume?: boolean | undefined;
  /** Without a command, a viewer of a terminal or a file transfer for so long it is suspended; never when left out. */
  readonly idleSuspendSeconds?: number | undefined;
  /** A snapshot under this name is taken when its lifetime ends. */
  readonly snapshotOnExpiry?: string | undefined;
};

export class InstaVM {
  readonly sandboxes: Sandboxes;
  readonly snapshots: Snapshots;
  /** Ports with an address, of all sandboxes. */
  readonly shares: Shares;
  /** Host names of one's own for shares. */
  readonly domains: Domains;
  readonly keys: ApiKeys;
  readonly credit: Credit;
  /** What was done in the account. */
  readonly audit: Audit;
  readonly quotas: Quotas;
  readonly baseUrl: string;
  readonly #http: HttpClient;

  /** @throws InstaVMError `unauthenticated` when there is no key */
  constructor(options: ClientOptions = {}) {
    const apiKey = options.apiKey ?? process.env.INSTAVM_API_KEY;
    if (!apiKey) {
      throw new InstaVMError('unauthenticated', 'no API key: pass apiKey or set INSTAVM_API_KEY', {
        hint: 'The daemon wrote one to admin.key in its data directory on its first start.',
      });
    }
    this.baseUrl = options.baseUrl ?? process.env.INSTAVM_BASE_URL ?? DEFAULT_BASE_URL;
    this.#http = new HttpClient(this.baseUrl, apiKey);
    this.sandboxes = new Sandboxes(this.#http);
    this.snapshots = new Snapshots(this.#http);
    this.shares = new Shares(this.#http);
    this.domains = new Domains(this.#http);
    this.keys = new ApiKeys(this.#http);
    this.credit = new Credit(this.#http);
    this.audit = new Audit(this.#http);
    this.quotas = new Quotas(this.#http);
  }

  /** Closes idle connections. */
  close(): void {
    this.#http.close();
  }
}

export class Sandboxes {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /** Resolves when the sandbox runs. */
  async create(options: CreateOptions = {}): Promise<Sandbox> {
    const json = {
      memory_mb: options.memoryMb,
      vcpu_count: options.vcpuCount,
      ttl_seconds: options.ttlSeconds,
      metadata: options.metadata,
      env: options.env,
      egress_policy: options.egress && wirePolicy(options.egress),
      snapshot_id: options.snapshotId,
      auto_suspend: options.autoSuspend,
      auto_resume: options.autoResume,
      idle_suspend_seconds: options.idleSuspendSeconds,
      snapshot_on_expiry: options.snapshotOnExpiry,
    };
    const { id } = await this.#http.json<{ id: string }>({ method: 'POST', path: '/v2/sandboxes', json });
    return new Sandbox(this.#http, id);
  }

  /** @throws InstaVMError `sandbox_not_found` */
  async get(id: string): Promise<Sandbox> {
    const sandbox = this.attach(id);
    await sandbox.info();
    return sandbox;
  }

  /** A handle without asking the server. */
  attach(id: string): Sandbox {
    return new Sandbox(this.#http, id);
  }

  /**
   * Newest first.
   * @param page.limit 1 to 1000, by default 1000
   * @param page.before the id of a sandbox: those that come after it
   * @param page.ended false: without those that have ended
   */
  async list(
    page: { readonly limit?: number; readonly before?: string; readonly ended?: boolean } = {},
  ): Promise<SandboxInfo[]> {
    const { sandboxes } = await this.#http.json<{ sandboxes: Parameters<typeof sandboxInfo>[0][] }>({
      method: 'GET',
      path: '/v2/sandboxes',
      query: page,
    });
    return sandboxes.map(sandboxInfo);
  }
}

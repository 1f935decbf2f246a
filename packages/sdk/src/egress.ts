/** Outbound access of a sandbox: its policy, what the policy says about a destination, and what the sandbox tried to reach. */
import { events } from './event-stream.ts';
import type { HttpClient } from './http.ts';

/** The five outbound switches of the contract. */
export type EgressPolicy = {
  /** Any host on port 80. */
  readonly allowHttp: boolean;
  /** Any host on port 443. */
  readonly allowHttps: boolean;
  /** The package registries that the server lists. */
  readonly allowPackageManagers: boolean;
  /** Names; `*.example.com` means every name below it, and not itself. */
  readonly allowedDomains: readonly string[];
  readonly allowedCidrs: readonly string[];
};

export type EgressTest = {
  readonly allowed: boolean;
  /** What decided: `allow_https`, `allowed_domains:*.example.com`, `default_deny`, … */
  readonly rule: string;
  /** A sentence, when it is not allowed. */
  readonly reason: string | null;
  /** What the name stands for now, each with its own verdict. */
  readonly addresses: readonly { readonly address: string; readonly allowed: boolean; readonly rule: string }[];
};

export type EgressLogEntry = {
  readonly kind: 'connect' | 'lookup';
  /** Grows; null only for a connection that is just beginning. */
  readonly id: number | null;
  readonly at: Date;
  /** The name or address asked for. */
  readonly host: string;
  /** Null for a look-up. */
  readonly port: number | null;
  /** What was dialled. */
  readonly address: string | null;
  readonly allowed: boolean;
  readonly rule: string;
  /** `open` only while following, when a connection begins. */
  readonly outcome: 'open' | 'closed' | 'denied' | 'failed' | 'cut';
  /** A sentence, when it was denied, failed or was cut. */
  readonly reason: string | null;
  /** As the sandbox sees it. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
  readonly durationMs: number | null;
  /** How many attempts, all alike, it stands for. */
  readonly repeated: number;
};

/** Entries that came and went faster than they were read. */
export type EgressGap = { readonly kind: 'gap'; readonly missed: number };

export type EgressLogFilter = {
  readonly verdict?: 'allowed' | 'denied' | undefined;
  /** This name and every name below it. */
  readonly host?: string | undefined;
  /** Only entries after this id. */
  readonly after?: number | undefined;
};

export type EgressLogPage = EgressLogFilter & {
  readonly before?: number | undefined;
  /** 1 to 1000; default 100. */
  readonly limit?: number | undefined;
};

export const wirePolicy = (policy: EgressPolicy) => ({
  allow_http: policy.allowHttp,
  allow_https: policy.allowHttps,
  allow_public_repos: policy.allowPackageManagers,
  allowed_domains: policy.allowedDomains,
  allowed_cidrs: policy.allowedCidrs,
});

export class Egress {
  readonly #http: HttpClient;
  readonly #path: string;

  constructor(http: HttpClient, sandboxId: string) {
    this.#http = http;
    this.#path = `/v2/sandboxes/${encodeURIComponent(sandboxId)}/egress`;
  }

  async setPolicy(policy: EgressPolicy): Promise<void> {
    await this.#http.json({ method: 'PUT', path: this.#path, json: wirePolicy(policy) });
  }

  async getPolicy(): Promise<EgressPolicy> {
    const wire = await this.#http.json<WirePolicy>({ method: 'GET', path: this.#path });
    return {
      allowHttp: wire.allow_http,
      allowHttps: wire.allow_https,
      allowPackageManagers: wire.allow_public_repos,
      allowedDomains: wire.allowed_domains,
      allowedCidrs: wire.allowed_cidrs,
    };
  }

  test(destination: string): Promise<EgressTest> {
    return this.#http.json({ method: 'POST', path: `${this.#path}/test`, json: { destination } });
  }

  async log(page: EgressLogPage): Promise<EgressLogEntry[]> {
    const request = { method: 'GET', path: `${this.#path}/log`, query: page } as const;
    return (await this.#http.json<{ entries: WireEntry[] }>(request)).entries.map(entryOf);
  }

  async *follow(filter: EgressLogFilter): AsyncGenerator<EgressLogEntry | EgressGap> {
    const query = { ...filter, follow: true };
    const body = await this.#http.stream({ method: 'GET', path: `${this.#path}/log`, query });
    for await (const event of events<WireEntry | EgressGap>(body)) yield event.kind === 'gap' ? event : entryOf(event);
  }
}

type WirePolicy = {
  allow_http: boolean;
  allow_https: boolean;
  allow_public_repos: boolean;
  allowed_domains: string[];
  allowed_cidrs: string[];
};

type WireEntry = {
  kind: EgressLogEntry['kind'];
  id: number | null;
  at: string;
  host: string;
  port: number | null;
  address: string | null;
  allowed: boolean;
  rule: string;
  outcome: EgressLogEntry['outcome'];
  reason: string | null;
  bytes_sent: number;
  bytes_received: number;
  duration_ms: number | null;
  repeated: number;
};

function entryOf(wire: WireEntry): EgressLogEntry {
  const { at, bytes_sent: bytesSent, bytes_received: bytesReceived, duration_ms: durationMs, ...same } = wire;
  return { ...same, at: new Date(at), bytesSent, bytesReceived, durationMs };
}

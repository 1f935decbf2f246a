/** Custom domains: host names of one's own for shares. */
import { setTimeout as sleep } from 'node:timers/promises';
import { InstaVMError } from './errors.ts';
import type { HttpClient } from './http.ts';

export type DomainInfo = {
  readonly id: number;
  /** In lower case, internationalized labels as A-labels. */
  readonly domain: string;
  readonly shareId: string;
  /** `verify` leads from `pending` or `failed` over `verified` to `issued`. */
  readonly status: 'pending' | 'verified' | 'issued' | 'failed';
  /** Leads to the share once it is issued. */
  readonly url: string;
  /** Why it failed and what to do; null unless it did. */
  readonly error: { readonly code: string; readonly message: string } | null;
  /** To be set before `verify`: a proof of whose the domain is, and the way to the server. A domain that can have no CNAME (example.com) takes an A record to the same host. */
  readonly records: {
    readonly txt: { readonly name: string; readonly value: string };
    readonly cname: { readonly name: string; readonly target: string };
  };
  readonly createdAt: Date;
  readonly issuedAt: Date | null;
};

export type DomainHealth = DomainInfo & {
  readonly certPresent: boolean;
  readonly keyPresent: boolean;
  readonly certExpiresAt: Date | null;
  /** The server reached itself by this name, with a certificate for it. Whether the world reaches it is for DNS to say. */
  readonly proxyActive: boolean;
};

const WAIT_MS = 600_000;
const POLL_MS = 1_000;

export class Domains {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /**
   * The same one when it is there already for this share.
   * @param wanted.dnsProvider kept for people to read
   * @throws InstaVMError `invalid_argument`, `share_not_found`, `domain_taken`, `quota_exceeded`, `not_available`
   */
  async create(wanted: {
    readonly domain: string;
    readonly shareId: string;
    readonly dnsProvider?: string | undefined;
  }): Promise<DomainInfo> {
    const json = { domain: wanted.domain, share_id: wanted.shareId, dns_provider: wanted.dnsProvider };
    return domainInfo(await this.#http.json({ method: 'POST', path: '/v1/custom-domains', json }));
  }

  /** Newest first. */
  async list(): Promise<DomainInfo[]> {
    const request = { method: 'GET', path: '/v1/custom-domains' } as const;
    return (await this.#http.json<{ domains: WireDomain[] }>(request)).domains.map(domainInfo);
  }

  /** @throws InstaVMError `domain_not_found` */
  async get(id: number): Promise<DomainInfo> {
    return domainInfo(await this.#http.json({ method: 'GET', path: pathOf(id) }));
  }

  /**
   * Has the server look for the TXT record and then order a certificate, which goes on after the answer: see `waitUntilIssued`.
   * Again after a failure; joins what is under way; changes nothing for one that is issued.
   * @returns what is known when DNS has answered, `failed` included
   * @throws InstaVMError `domain_not_found`
   */
  async verify(id: number): Promise<DomainInfo> {
    return domainInfo(await this.#http.json({ method: 'POST', path: `${pathOf(id)}/verify` }));
  }

  /**
   * Resolves when the certificate is there. Verifies nothing by itself.
   * @param options.timeoutMs default 600000
   * @throws InstaVMError with the code of what failed, such as `domain_unverified` or `certificate_failed`; `wait_timeout`; `domain_not_found`
   */
  async waitUntilIssued(
    id: number,
    options: { readonly timeoutMs?: number | undefined; readonly signal?: AbortSignal | undefined } = {},
  ): Promise<DomainInfo> {
    const { timeoutMs = WAIT_MS, signal } = options;
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      signal?.throwIfAborted();
      const domain = await this.get(id);
      if (domain.status === 'issued') return domain;
      if (domain.status === 'failed') {
        const { code = 'unexpected_answer', message = 'no reason was given' } = domain.error ?? {};
        throw new InstaVMError(code, `${domain.domain}: ${message}`);
      }
      if (Date.now() + POLL_MS > deadline) {
        const hint = domain.status === 'pending' ? 'It is to be verified first.' : 'It goes on; wait again.';
        throw new InstaVMError('wait_timeout', `${domain.domain} is still ${domain.status}`, { hint });
      }
      await sleep(POLL_MS, undefined, { ...(signal && { signal }) });
    }
  }

  /** @throws InstaVMError `domain_not_found` */
  async health(id: number): Promise<DomainHealth> {
    const wire = await this.#http.json<WireHealth>({ method: 'GET', path: `${pathOf(id)}/health` });
    return {
      ...domainInfo(wire),
      certPresent: wire.cert_present,
      keyPresent: wire.key_present,
      certExpiresAt: wire.cert_expires_at === null ? null : new Date(wire.cert_expires_at),
      proxyActive: wire.proxy_active,
    };
  }

  /** With its certificate, whatever is under way. @throws InstaVMError `domain_not_found`, also when it is deleted already */
  async delete(id: number): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: pathOf(id) });
  }
}

const pathOf = (id: number): string => `/v1/custom-domains/${encodeURIComponent(id)}`;

type WireDomain = {
  id: number;
  domain: string;
  share_id: string;
  status: DomainInfo['status'];
  url: string;
  last_error: string | null;
  last_error_code: string | null;
  setup: { txt_record: { name: string; value: string }; cname: { name: string; target: string } };
  created_at: string;
  issued_at: string | null;
};
type WireHealth = WireDomain & {
  cert_present: boolean;
  key_present: boolean;
  proxy_active: boolean;
  cert_expires_at: string | null;
};

const domainInfo = (wire: WireDomain): DomainInfo => ({
  id: wire.id,
  domain: wire.domain,
  shareId: wire.share_id,
  status: wire.status,
  url: wire.url,
  error: wire.last_error === null ? null : { code: wire.last_error_code ?? 'internal', message: wire.last_error },
  records: { txt: wire.setup.txt_record, cname: wire.setup.cname },
  createdAt: new Date(wire.created_at),
  issuedAt: wire.issued_at === null ? null : new Date(wire.issued_at),
});

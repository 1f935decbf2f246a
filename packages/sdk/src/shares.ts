/** Shares: ports of sandboxes as HTTPS addresses. */
import type { HttpClient } from './http.ts';

export type ShareInfo = {
  readonly id: string;
  /** The same as long as the share is open. */
  readonly url: string;
  readonly port: number;
  /** Whether anyone who knows the address may use it; else it takes a link, or an API key of the account. */
  readonly isPublic: boolean;
  /** Whether the program sees `localhost:<port>` as Host, and not the name that visitors use. */
  readonly rewriteHost: boolean;
  readonly sandboxId: string;
  readonly createdAt: Date;
};

/** What is left out stays as it is; of a new share it is false. */
export type ShareChange = { readonly isPublic?: boolean | undefined; readonly rewriteHost?: boolean | undefined };

/** Opens a share for whoever has it, until it expires, or it or the share is revoked. */
export type ShareLink = { readonly id: string; readonly url: string; readonly expiresAt: Date };

export type PreviewAuthority = {
  readonly domain: string;
  /** PEM */
  readonly certificate: string;
};

/** The server lets no account have more, and gives no longer page. */
const MOST_OPEN = 1_000;

/** Those of the account. */
export class Shares {
  readonly #http: HttpClient;
  readonly #sandboxId: string | undefined;

  constructor(http: HttpClient, sandboxId?: string) {
    this.#http = http;
    this.#sandboxId = sandboxId;
  }

  /**
   * Open ones of sandboxes that have not ended, newest first.
   * @param page.limit 1 to 1000; by default all that an account can have
   * @param page.before the id of a share: those that come after it
   */
  async list(page: { readonly limit?: number; readonly before?: string } = {}): Promise<ShareInfo[]> {
    const query = { session_id: this.#sandboxId, limit: page.limit ?? MOST_OPEN, before: page.before };
    const { shares } = await this.#http.json<{ shares: WireShare[] }>({ method: 'GET', path: '/v1/shares', query });
    return shares.map(shareInfo);
  }

  /** @throws InstaVMError `share_not_found`, also when its sandbox has ended */
  async get(id: string): Promise<ShareInfo> {
    return shareInfo(await this.#http.json({ method: 'GET', path: pathOf(id) }));
  }

  /** Made private, whoever came in while it was public is cut off. @throws InstaVMError `share_not_found` */
  async update(id: string, change: ShareChange): Promise<ShareInfo> {
    const json = { is_public: change.isPublic, rewrite_host: change.rewriteHost };
    return shareInfo(await this.#http.json({ method: 'PATCH', path: pathOf(id), json }));
  }

  /** At once, for good, with what is open; success when it is so already. @throws InstaVMError `share_not_found` */
  async revoke(id: string): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: pathOf(id) });
  }

  /**
   * What clients of the addresses have to trust when the server has no certificate of its own: it can speak for names under `domain` alone.
   * @throws InstaVMError `not_available` when there is none
   */
  async authority(): Promise<PreviewAuthority> {
    return this.#http.json({ method: 'GET', path: '/v2/previews/ca' });
  }

  /**
   * A link to a private share for a browser.
   * @param options.ttlSeconds 1 to 604800; default 3600
   * @throws InstaVMError `share_not_found`
   */
  async link(id: string, options: { readonly ttlSeconds?: number | undefined } = {}): Promise<ShareLink> {
    const json = { ttl_seconds: options.ttlSeconds };
    const request = { method: 'POST', path: `${pathOf(id)}/token`, json } as const;
    type Answer = { link_id: string; url: string; expires_at: string };
    const { link_id, url, expires_at } = await this.#http.json<Answer>(request);
    return { id: link_id, url, expiresAt: new Date(expires_at) };
  }

  /** One link, the cookies that it became and whoever is in through it; success when it is so already. @throws InstaVMError `share_not_found` */
  async revokeLink(id: string, linkId: string): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: `${pathOf(id)}/links/${encodeURIComponent(linkId)}` });
  }
}

/** Those of one sandbox. */
export class SandboxShares extends Shares {
  readonly #http: HttpClient;
  readonly #sandboxId: string;

  constructor(http: HttpClient, sandboxId: string) {
    super(http, sandboxId);
    this.#http = http;
    this.#sandboxId = sandboxId;
  }

  /**
   * The address of a port, the same one each time until it is revoked. Nothing need listen there yet.
   * @throws InstaVMError `not_available` when the server serves no previews; `lease_expired`, `invalid_state`
   */
  async create({ port, isPublic, rewriteHost }: ShareChange & { readonly port: number }): Promise<ShareInfo> {
    const json = { port, is_public: isPublic, rewrite_host: rewriteHost, session_id: this.#sandboxId };
    return shareInfo(await this.#http.json({ method: 'POST', path: '/v1/shares', json }));
  }
}

const pathOf = (id: string): string => `/v1/shares/${encodeURIComponent(id)}`;

type WireShare = {
  share_id: string;
  url: string;
  port: number;
  is_public: boolean;
  rewrite_host: boolean;
  session_id: string;
  created_at: string;
};

const shareInfo = (wire: WireShare): ShareInfo => ({
  id: wire.share_id,
  url: wire.url,
  port: wire.port,
  isPublic: wire.is_public,
  rewriteHost: wire.rewrite_host,
  sandboxId: wire.session_id,
  createdAt: new Date(wire.created_at),
});

/** API keys of the account. */
import type { HttpClient } from './http.ts';

/** `read` looks, `run` makes, uses and ends sandboxes as well, `full` also manages keys and what else is the account's. */
export type KeyScope = 'read' | 'run' | 'full';

export type ApiKeyInfo = {
  readonly id: number;
  readonly name: string;
  /** The name, when none was given. */
  readonly description: string;
  /** The first characters of its secret. */
  readonly prefix: string;
  readonly scope: KeyScope;
  /** Only sandboxes with these entries in their metadata are there for it; null: all are. */
  readonly sandboxMetadata: Readonly<Record<string, unknown>> | null;
  readonly createdAt: Date;
  readonly expiresAt: Date | null;
  /** To the minute. */
  readonly lastUsedAt: Date | null;
};

/** The one time that the secret is shown. */
export type NewApiKey = ApiKeyInfo & { readonly secret: string };

export type CreateKeyOptions = {
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  /** `full` when left out. */
  readonly scope?: KeyScope | undefined;
  /** Goes with the scopes `read` and `run`. What such a key makes has these entries. */
  readonly sandboxMetadata?: Readonly<Record<string, unknown>> | undefined;
  /** Never when left out. */
  readonly expiresAt?: Date | undefined;
};

export class ApiKeys {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /** @throws InstaVMError `quota_exceeded` beyond a hundred */
  async create(options: CreateKeyOptions = {}): Promise<NewApiKey> {
    const { name, description, scope, sandboxMetadata, expiresAt } = options;
    const restriction = { sandbox_metadata: sandboxMetadata, expires_at: expiresAt?.toISOString() };
    const json = { name, description, scope, ...restriction };
    return newKey(await this.#http.json({ method: 'POST', path: '/v1/api-keys/', json }));
  }

  /** Newest first, without those that were revoked. */
  async list(): Promise<ApiKeyInfo[]> {
    return (await this.#http.json<WireKey[]>({ method: 'GET', path: '/v1/api-keys/' })).map(keyInfo);
  }

  /** @throws InstaVMError `key_not_found` */
  async get(id: number): Promise<ApiKeyInfo> {
    return keyInfo(await this.#http.json({ method: 'GET', path: pathOf(id) }));
  }

  /** What is left out stays. @param change.expiresAt null: never. @throws InstaVMError `key_not_found` */
  async update(
    id: number,
    change: Pick<CreateKeyOptions, 'name' | 'description'> & { readonly expiresAt?: Date | null | undefined },
  ): Promise<ApiKeyInfo> {
    const { name, description, expiresAt } = change;
    const json = { name, description, expires_at: expiresAt === null ? null : expiresAt?.toISOString() };
    return keyInfo(await this.#http.json({ method: 'PATCH', path: pathOf(id), json }));
  }

  /**
   * A new secret for the same key. The old one, and what is open by it, ends now or after a grace.
   * @param options.graceSeconds up to 604800; 0 when left out
   * @throws InstaVMError `key_not_found`
   */
  async rotate(id: number, options: { readonly graceSeconds?: number | undefined } = {}): Promise<NewApiKey> {
    const json = { grace_seconds: options.graceSeconds };
    return newKey(await this.#http.json({ method: 'POST', path: `${pathOf(id)}/rotate`, json }));
  }

  /** At once and for good, with what is open by it. @throws InstaVMError `key_not_found` */
  async revoke(id: number): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: pathOf(id) });
  }
}

const pathOf = (id: number): string => `/v1/api-keys/${encodeURIComponent(id)}`;

type WireKey = {
  id: number;
  name: string;
  description: string;
  prefix: string;
  scope: KeyScope;
  sandbox_metadata: Record<string, unknown> | null;
  created_at: string;
  expires_at: string | null;
  last_used_at: string | null;
};

const instant = (text: string | null): Date | null => (text === null ? null : new Date(text));

const keyInfo = (wire: WireKey): ApiKeyInfo => ({
  id: wire.id,
  name: wire.name,
  description: wire.description,
  prefix: wire.prefix,
  scope: wire.scope,
  sandboxMetadata: wire.sandbox_metadata,
  createdAt: new Date(wire.created_at),
  expiresAt: instant(wire.expires_at),
  lastUsedAt: instant(wire.last_used_at),
});

const newKey = (wire: WireKey & { api_key: string }): NewApiKey => ({ ...keyInfo(wire), secret: wire.api_key });

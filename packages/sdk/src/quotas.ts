/** How much an account may have and ask for, and what it has. */
import type { HttpClient } from './http.ts';

/** What an account has of what is limited. */
export type QuotaUse = {
  /** That run. */
  readonly sandboxes: number;
  /** Of all of them together. */
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly snapshots: number;
  /** By snapshots and by what suspended sandboxes keep. */
  readonly storedMib: number;
};

export type QuotaLimits = QuotaUse & {
  readonly createsPerMinute: number;
  readonly requestsPerMinute: number;
};

/** null: the server's default again. What is left out stays. */
export type QuotaChanges = { readonly [Name in keyof QuotaLimits]?: number | null | undefined };

export type AccountQuotas = { readonly accountId: string; readonly limits: QuotaLimits; readonly used: QuotaUse };

export class Quotas {
  readonly #http: HttpClient;

  constructor(http: HttpClient) {
    this.#http = http;
  }

  /** Your own. */
  async get(): Promise<AccountQuotas> {
    return quotasOf(await this.#http.json({ method: 'GET', path: '/v2/quotas' }));
  }

  /**
   * For the administrator. Holds from the next request on; what runs already goes on.
   * @param account e-mail address or id
   * @throws InstaVMError `permission_denied`, `account_not_found`
   */
  async set(account: string, changes: QuotaChanges): Promise<AccountQuotas> {
    const { memoryMib, storedMib, createsPerMinute, requestsPerMinute, ...rest } = changes;
    const json = {
      ...rest,
      memory_mib: memoryMib,
      stored_mib: storedMib,
      creates_per_minute: createsPerMinute,
      requests_per_minute: requestsPerMinute,
    };
    const path = `/v2/accounts/${encodeURIComponent(account)}/quotas`;
    return quotasOf(await this.#http.json({ method: 'PATCH', path, json }));
  }
}

type WireUse = { sandboxes: number; vcpus: number; memory_mib: number; snapshots: number; stored_mib: number };
type WireQuotas = {
  account_id: string;
  quotas: WireUse & { creates_per_minute: number; requests_per_minute: number };
  used: WireUse;
};

const quotasOf = ({ account_id, quotas, used }: WireQuotas): AccountQuotas => ({
  accountId: account_id,
  limits: {
    ...useOf(quotas),
    createsPerMinute: quotas.creates_per_minute,
    requestsPerMinute: quotas.requests_per_minute,
  },
  used: useOf(used),
});

const useOf = ({ sandboxes, vcpus, memory_mib, snapshots, stored_mib }: WireUse): QuotaUse => ({
  sandboxes,
  vcpus,
  memoryMib: memory_mib,
  snapshots,
  storedMib: stored_mib,
});

/** Quotas of every account: its own, else the server's defaults. Kept in memory, for every request asks. */
import type { AccountId, QuotaSource, Quotas } from '@instavm/core';
import type { Accounts } from '@instavm/store';
import { QUOTA_NAMES, type QuotaName } from '@instavm/wire';

export type QuotaValues = Readonly<Record<QuotaName, number>>;

export class QuotaBook implements QuotaSource {
  readonly #accounts: Pick<Accounts, 'quotasOf' | 'setQuotas'>;
  readonly #defaults: QuotaValues;
  readonly #known = new Map<AccountId, QuotaValues>();

  constructor(accounts: Pick<Accounts, 'quotasOf' | 'setQuotas'>, defaults: QuotaValues) {
    this.#accounts = accounts;
    this.#defaults = defaults;
  }

  async valuesOf(accountId: AccountId): Promise<QuotaValues> {
    const known = this.#known.get(accountId);
    if (known !== undefined) return known;
    const own = await this.#accounts.quotasOf(accountId);
    const values = Object.fromEntries(QUOTA_NAMES.map((name) => [name, own.get(name) ?? this.#defaults[name]]));
    this.#known.set(accountId, values as QuotaValues);
    return values as QuotaValues;
  }

  async of(accountId: AccountId): Promise<Quotas> {
    const { sandboxes, vcpus, memory_mib, snapshots, stored_mib } = await this.valuesOf(accountId);
    return { sandboxes, vcpus, memoryMib: memory_mib, snapshots, storedMib: stored_mib };
  }

  /** Holds from the next request on; what runs already goes on. @param changes null: the server's default again */
  async set(accountId: AccountId, changes: Partial<Record<QuotaName, number | null>>): Promise<QuotaValues> {
    await this.#accounts.setQuotas(accountId, changes);
    this.#known.delete(accountId);
    return this.valuesOf(accountId);
  }
}

/**
 * Credit: what an account has left, and what happens when that is nothing: what runs is suspended, and nothing is made or resumed until
 * there is more. Whether that is so is a setting; what things cost is counted either way.
 */
import { InstaVMError } from '@instavm/wire';
import type { Clock } from '../clock.ts';
import type { AccountId } from '../ids.ts';
import type { LifecycleLog } from '../log.ts';
import type { Ledger } from './ledger.ts';
import type { Meter } from './meter.ts';

/** Asked before a microVM is made or resumed. */
export interface SpendingGate {
  /** @throws credit_exhausted */
  check(accountId: AccountId): Promise<void>;
}

export type CreditPorts = {
  readonly ledger: Ledger;
  readonly meter: Pick<Meter, 'accounts' | 'beside'>;
  readonly clock: Clock;
  readonly log: Pick<LifecycleLog, 'info' | 'warn'>;
  readonly isEnforced: boolean;
  /** What every account is given once. */
  readonly welcomeMicroDollars: number;
};

export type Suspend = (accountId: AccountId, reason: string) => Promise<void>;

export const CREDIT_USED_UP = 'the credit of the account is used up';

/** The key of what every account is given begins so. */
export const WELCOME = 'welcome:';

export class Credit implements SpendingGate {
  readonly #ports: CreditPorts;
  readonly #welcomed = new Set<AccountId>();
  /** Those whose sandboxes are being suspended, which can take long, and longer when an account wants it to. */
  readonly #stopping = new Set<AccountId>();

  constructor(ports: CreditPorts) {
    this.#ports = ports;
  }

  get isEnforced(): boolean {
    return this.#ports.isEnforced;
  }

  /** What is left now, in micro-dollars; less than nothing when more was used than given. */
  async remaining(accountId: AccountId): Promise<number> {
    const { ledger, meter } = this.#ports;
    await this.#welcome(accountId);
    const { value: balance, accrued } = await meter.beside(accountId, () => ledger.balanceOf(accountId));
    return balance - accrued.microDollars;
  }

  async check(accountId: AccountId): Promise<void> {
    if (!this.isEnforced || (await this.remaining(accountId)) > 0) return;
    throw new InstaVMError('credit_exhausted', CREDIT_USED_UP);
  }

  /** @param id of the request: the same one is granted once */
  async grant(accountId: AccountId, microDollars: number, id: string, note: string | null): Promise<void> {
    await this.#welcome(accountId);
    await this.#give(accountId, microDollars, `grant:${accountId}:${id}`, note);
  }

  /**
   * Looks at every account with something running; none waits for another one. Never rejects.
   * @param suspend suspends what runs of an account; it is asked again when it is done and something still does
   */
  async enforce(suspend: Suspend): Promise<void> {
    if (!this.isEnforced) return;
    const due = [...this.#ports.meter.accounts()].filter((accountId) => !this.#stopping.has(accountId));
    await Promise.all(due.map((accountId) => this.#enforceOn(accountId, suspend)));
  }

  async #enforceOn(accountId: AccountId, suspend: Suspend): Promise<void> {
    const { log } = this.#ports;
    this.#stopping.add(accountId);
    try {
      const remaining = await this.remaining(accountId);
      if (remaining > 0) return;
      log.info({ accountId, remaining }, CREDIT_USED_UP);
      await suspend(accountId, CREDIT_USED_UP);
    } catch (err) {
      log.warn({ err, accountId }, 'an account without credit could not be stopped');
    } finally {
      this.#stopping.delete(accountId);
    }
  }

  async #welcome(accountId: AccountId): Promise<void> {
    if (this.#welcomed.has(accountId)) return;
    const { welcomeMicroDollars } = this.#ports;
    if (welcomeMicroDollars > 0) await this.#give(accountId, welcomeMicroDollars, `${WELCOME}${accountId}`, 'welcome');
    this.#welcomed.add(accountId);
  }

  #give(accountId: AccountId, microDollars: number, key: string, note: string | null): Promise<void> {
    const at = this.#ports.clock.now();
    const none = { resourceId: null, vcpuMs: 0, mibMs: 0, bytes: 0 };
    return this.#ports.ledger.add([{ ...none, key, accountId, kind: 'grant', microDollars, from: at, to: at, note }]);
  }
}

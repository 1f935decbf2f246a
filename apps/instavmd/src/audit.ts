/**
 * The audit trail of the daemon: who is told of new events, what is refused, what sandboxes are denied, and how long it is all kept.
 * What is done is written with it, by `packages/store`.
 */
import {
  type AccountId,
  type AuditTrail,
  type Clock,
  type EgressEntry,
  type EgressLog,
  type LifecycleLog,
  type NewAuditEvent,
  Repeats,
  type SandboxId,
  type SandboxRecords,
  SYSTEM,
} from '@instavm/core';
import type { Accounts, ApiKeys } from '@instavm/store';
import type { AuditType, ErrorCode, InstaVMError } from '@instavm/wire';
import { presentActor } from './acting.ts';

const SWEEP_INTERVAL_MS = 10 * 60_000;
const DAY_MS = 24 * 3_600_000;

export type Kept = { readonly days: number; readonly events: number };

export type AuditParts = {
  readonly trail: AuditTrail;
  readonly news: News;
  readonly accounts: Pick<Accounts, 'administratorId'>;
  readonly keys: Pick<ApiKeys, 'whose'>;
  readonly sandboxes: Pick<SandboxRecords, 'find'>;
  readonly clock: Clock;
  readonly log: Pick<LifecycleLog, 'info' | 'warn'>;
};

const REFUSALS: Partial<Record<ErrorCode, AuditType>> = {
  permission_denied: 'auth.permission_denied',
  credit_exhausted: 'credit.refused',
  quota_exceeded: 'quota.refused',
  rate_limited: 'quota.rate_limited',
};

export class Audit {
  readonly trail: AuditTrail;
  readonly news: News;
  readonly #parts: AuditParts;
  readonly #repeats: Repeats;
  /** What nobody waits for: whose it is is being looked up. */
  readonly #lookUps = new Set<Promise<void>>();
  #administrator: AccountId | undefined;

  constructor(parts: AuditParts) {
    this.#parts = parts;
    this.trail = parts.trail;
    this.news = parts.news;
    this.#repeats = new Repeats(parts);
  }

  /** Something that nothing else keeps. The answer waits for it, so that who has it finds it there. */
  tell(event: NewAuditEvent): Promise<void> {
    return this.trail.append([event]);
  }

  /** A request of whoever acts now was refused. @param what the route */
  refused({ code, message, details }: InstaVMError, what: string): void {
    const type = REFUSALS[code];
    const actor = presentActor();
    const { accountId } = actor;
    if (type === undefined || accountId === null) return;
    const quota = details?.quota;
    const told = { code, request: what, ...(quota !== undefined && { quota }) };
    const event = { accountId, type, status: 'denied' as const, actor, details: told, error: message };
    this.#repeats.note(`${accountId} ${type}`, `${actor.id} ${what} ${quota}`, event, { ...event, details: { code } });
  }

  /** What runs of the account is about to be suspended. Told once while that lasts. */
  creditExhausted(accountId: AccountId): void {
    const event = { accountId, type: 'credit.exhausted', status: 'success', actor: SYSTEM } as const;
    this.#repeats.note(`credit ${accountId}`, 'exhausted', { ...event, resource: { type: 'account', id: accountId } });
  }

  /** Someone came with a key that opens nothing. Never throws. */
  keyRefused(secret: string, address: string): void {
    this.#lookUp(this.#keyRefused(secret, address));
  }

  /** @param accountId undefined when what was typed is of no account: the administrator is told */
  signInFailed(accountId: AccountId | undefined, details: Readonly<Record<string, unknown>>): void {
    const actor = presentActor();
    const note = (told: AccountId | undefined): void => {
      if (told === undefined) return;
      const event = { accountId: told, actor, details, type: 'auth.sign_in_failed', status: 'denied' } as const;
      this.#repeats.note(`sign-in ${actor.address}`, told, event);
    };
    this.#lookUp(this.#ofAccount(accountId).then(note));
  }

  /** A log that also tells the trail of what was denied. */
  watching(log: EgressLog): EgressLog {
    return {
      list: (sandboxId, query) => log.list(sandboxId, query),
      append: async (sandboxId, entries) => {
        await log.append(sandboxId, entries);
        const denied = entries.filter(({ outcome }) => outcome === 'denied');
        if (denied.length > 0) await this.#denied(sandboxId, denied).catch(this.#warning);
      },
    };
  }

  /** Forgets what is too old or too much, now and from time to time. @returns how to stop */
  keepBounded({ days, events }: Kept): () => void {
    const { clock, log } = this.#parts;
    const sweep = (): void => {
      this.trail
        .prune(new Date(clock.now().getTime() - days * DAY_MS), events)
        .then((removed) => removed > 0 && log.info({ removed }, 'forgot old audit events'))
        .catch(this.#warning);
    };
    sweep();
    const timer = setInterval(sweep, SWEEP_INTERVAL_MS);
    return () => clearInterval(timer);
  }

  /** Writes what is being looked up, and what was only counted so far. */
  async stop(): Promise<void> {
    await Promise.all(this.#lookUps);
    await this.#repeats.stop();
  }

  #lookUp(work: Promise<void>): void {
    const told = work.catch(this.#warning).finally(() => this.#lookUps.delete(told));
    this.#lookUps.add(told);
  }

  async #keyRefused(secret: string, address: string): Promise<void> {
    const actor = presentActor();
    const known = await this.#parts.keys.whose(secret);
    const accountId = await this.#ofAccount(known?.key.accountId);
    if (accountId === undefined) return;
    const { id, name, prefix } = known?.key ?? {};
    const event: NewAuditEvent = {
      ...{ accountId, actor: { ...actor, address }, type: 'key.refused', status: 'denied' },
      ...(id !== undefined && { resource: { type: 'key', id: String(id) } }),
      details: known === undefined ? { why: 'unknown' } : { why: known.why, name, prefix },
    };
    this.#repeats.note(`key ${id ?? 'unknown'}`, address, event);
  }

  async #denied(sandboxId: SandboxId, entries: readonly EgressEntry[]): Promise<void> {
    const record = await this.#parts.sandboxes.find(sandboxId);
    if (record === undefined) return;
    const { accountId, incarnationId } = record;
    for (const { host, port, rule, reason, kind, repeated } of entries) {
      const event = {
        ...({ accountId, sandboxId, incarnationId, type: 'egress.denied', status: 'denied' } as const),
        actor: { ...SYSTEM, type: 'sandbox', id: sandboxId, accountId } as const,
        resource: { type: 'sandbox', id: sandboxId },
        details: { kind, host, port, rule },
        error: reason,
      };
      const rest = { ...event, details: { host: '*', rule: 'not_listed' }, error: 'more hosts than are listed' };
      this.#repeats.note(`egress ${sandboxId}`, `${kind} ${host} ${port} ${rule}`, event, rest, repeated);
    }
  }

  async #ofAccount(accountId: AccountId | undefined): Promise<AccountId | undefined> {
    if (accountId !== undefined) return accountId;
    this.#administrator ??= await this.#parts.accounts.administratorId();
    return this.#administrator;
  }

  readonly #warning = (err: unknown): void => this.#parts.log.warn({ err }, 'the audit trail');
}

/** Who waits for new events of an account. */
export class News {
  readonly #waiting = new Map<AccountId, Set<() => void>>();
  #hasEnded = false;

  tell(accountId: AccountId): void {
    for (const wake of this.#waiting.get(accountId) ?? []) wake();
  }

  /**
   * What is told from here on is not missed.
   * @returns resolves when there is something new since the last call; with false when there will be nothing more
   */
  follow(accountId: AccountId, signal: AbortSignal): () => Promise<boolean> {
    let isFresh = false;
    let resolve = (): void => {};
    const wake = (): void => {
      isFresh = true;
      resolve();
    };
    const waiting = this.#waiting.get(accountId) ?? new Set();
    this.#waiting.set(accountId, waiting.add(wake));
    const isOver = (): boolean => signal.aborted || this.#hasEnded;
    signal.addEventListener('abort', () => {
      waiting.delete(wake);
      if (waiting.size === 0 && this.#waiting.get(accountId) === waiting) this.#waiting.delete(accountId);
      wake();
    });
    return async () => {
      if (!isFresh && !isOver()) await new Promise<void>((done) => (resolve = done));
      isFresh = false;
      return !isOver();
    };
  }

  end(): void {
    this.#hasEnded = true;
    for (const waiting of this.#waiting.values()) for (const wake of waiting) wake();
  }
}

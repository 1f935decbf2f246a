/**
 * Custom domains: host names of users' own that lead to their shares. A domain is somebody's when its DNS says so; then a certificate is ordered
 * for it. Both take as long as they take, so a verification runs beside its request, once per domain, and the record says how far it is.
 * How DNS is asked, certificates are had and requests are served, others know.
 */
import { InstaVMError } from '@instavm/wire';
import type { Clock } from './clock.ts';
import { withDeadline } from './deadline.ts';
import { type DomainFailure, type DomainMove, type DomainRecord, type DomainRecords, HELD_STATUSES } from './domain.ts';
import { challengeOf, parseDomainName } from './domain-name.ts';
import type { AccountId, ShareId } from './ids.ts';
import type { LifecycleLog } from './log.ts';
import type { Shares } from './shares.ts';

export type DomainPorts = {
  readonly domains: DomainRecords;
  readonly shares: Pick<Shares, 'get'>;
  /** @returns the values of the TXT records of a name; none when it has none. @throws when nobody could be asked */
  readonly lookUpTxt: (name: string, signal: AbortSignal) => Promise<readonly string[]>;
  readonly certificates: {
    /** Resolves when visitors of the domain get a certificate; ends soon after an abort. @throws InstaVMError */
    issue(domain: string, signal: AbortSignal): Promise<void>;
    state(domain: string): Promise<{ certPresent: boolean; keyPresent: boolean; expiresAt: Date | null }>;
    forget(domain: string): Promise<void>;
  };
  /** What keeps a host name from being a custom domain here, as the end of a sentence that begins with it. */
  readonly problemOf: (name: string) => string | undefined;
  readonly clock: Clock;
  readonly log: LifecycleLog;
};

export const MAX_DOMAINS_PER_ACCOUNT = 50;
/** Certificate authorities limit what one of their accounts orders, and all tenants of a host share one. */
export const MAX_ORDERS_PER_HOUR = 20;
const HOUR_MS = 3_600_000;
const LOOK_UP_MS = 15_000;
const ISSUE_MS = 10 * 60_000;
/** Long enough for DNS to answer as a rule, so that who asks learns the outcome at once. */
const ANSWER_MS = 2_000;
/** DNS is the world's: what is quoted of it is bounded. */
const QUOTED_VALUES = 5;
const QUOTED_CHARS = 80;

type Run = { readonly stop: AbortController; readonly lookedUp: Promise<void>; readonly ended: Promise<void> };

export class Domains {
  readonly #ports: DomainPorts;
  readonly #runs = new Map<number, Run>();
  readonly #deleting = new Set<number>();
  /** When each account's certificates of the last hour were ordered. */
  readonly #orders = new Map<AccountId, number[]>();
  #isClosed = false;

  constructor(ports: DomainPorts) {
    this.#ports = ports;
  }

  /** The same one when the account has it already for the share. @throws invalid_argument, share_not_found, domain_taken, quota_exceeded */
  async create(
    accountId: AccountId,
    wanted: { readonly domain: string; readonly shareId: ShareId; readonly dnsProvider: string },
  ): Promise<DomainRecord> {
    const { domains, shares, problemOf, clock } = this.#ports;
    const parsed = parseDomainName(wanted.domain, problemOf);
    if ('problem' in parsed)
      throw new InstaVMError('invalid_argument', `domain: ${wanted.domain.slice(0, 255)} ${parsed.problem}`);
    const { id: shareId } = await shares.get(accountId, wanted.shareId);
    const domain = parsed.name;
    const held = await domains.findHeld(domain);
    if (held !== undefined && held.accountId !== accountId) throw takenByOther(domain);
    const record: Omit<DomainRecord, 'id'> = {
      ...{ accountId, domain, shareId, dnsProvider: wanted.dnsProvider, verificationToken: newToken() },
      ...{ status: 'pending', failure: null, createdAt: clock.now(), issuedAt: null },
    };
    const kept = await domains.insert(record, MAX_DOMAINS_PER_ACCOUNT);
    if (kept.shareId === shareId) return kept;
    throw new InstaVMError('domain_taken', `${domain} is your custom domain ${kept.id}, for share ${kept.shareId}`, {
      hint: `Delete that one first: DELETE /v1/custom-domains/${kept.id}`,
      details: { id: kept.id },
    });
  }

  /** @throws domain_not_found, also for another account's */
  async get(accountId: AccountId, id: number): Promise<DomainRecord> {
    const record = await this.#ports.domains.find(id);
    if (record?.accountId !== accountId) throw noDomain(id);
    return record;
  }

  /** Newest first. */
  list(accountId: AccountId): Promise<DomainRecord[]> {
    return this.#ports.domains.list(accountId, MAX_DOMAINS_PER_ACCOUNT);
  }

  /**
   * Looks for the TXT record, then has a certificate issued. A second call joins the first, and one for a domain that is issued changes nothing.
   * @returns what is known when DNS has answered, or after two seconds
   * @throws domain_not_found, shutting_down
   */
  async verify(accountId: AccountId, id: number): Promise<DomainRecord> {
    const record = await this.get(accountId, id);
    if (this.#deleting.has(id)) throw noDomain(id);
    if (this.#isClosed) throw new InstaVMError('shutting_down', 'the daemon is stopping');
    if (record.status === 'issued') return record;
    const { lookedUp } = this.#runs.get(id) ?? this.#begin(id);
    // Too late is no failure: who asks then learns it from the record.
    await withDeadline(this.#ports.clock, ANSWER_MS, lookedUp, () => new Error()).catch(() => {});
    return this.get(accountId, id);
  }

  /** Ends what is under way, and forgets the certificate. @throws domain_not_found, also when it is deleted already */
  async delete(accountId: AccountId, id: number): Promise<void> {
    await this.get(accountId, id);
    this.#deleting.add(id);
    try {
      await this.#stop(id);
      const record = await this.#ports.domains.find(id);
      // One that is not held has no certificate, or it is another account's.
      if (record && HELD_STATUSES.includes(record.status)) await this.#ports.certificates.forget(record.domain);
      await this.#ports.domains.remove(id);
    } finally {
      this.#deleting.delete(id);
    }
  }

  /** Takes up what a daemon of before had verified and not finished. */
  async resume(): Promise<void> {
    for (const { id } of await this.#ports.domains.listByStatus('verified')) if (!this.#runs.has(id)) this.#begin(id);
  }

  /** What is under way ends, for the next daemon to take up. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.all([...this.#runs.keys()].map((id) => this.#stop(id)));
  }

  async #stop(id: number): Promise<void> {
    const run = this.#runs.get(id);
    run?.stop.abort();
    await run?.ended;
  }

  #begin(id: number): Run {
    const stop = new AbortController();
    const { promise: lookedUp, resolve } = Promise.withResolvers<void>();
    const ended = this.#run(id, stop.signal, resolve)
      .catch((err: unknown) => this.#ports.log.warn({ err, id }, 'a custom domain was left as it is'))
      .finally(() => {
        this.#runs.delete(id);
        resolve();
      });
    const run = { stop, lookedUp, ended };
    this.#runs.set(id, run);
    return run;
  }

  /** The only one that moves its record, while it runs. @throws what the records throw, to which the failure could not be written */
  async #run(id: number, signal: AbortSignal, lookedUp: () => void): Promise<void> {
    const { domains, log } = this.#ports;
    // Read anew: a run before this one may just have ended.
    const record = await domains.find(id);
    if (record === undefined || record.status === 'issued') return;
    const { domain } = record;
    try {
      if (record.status !== 'verified') {
        if (record.status === 'failed') await this.#move(id, { status: 'pending' });
        await this.#prove(record, signal);
        signal.throwIfAborted();
        await this.#move(id, { status: 'verified' });
        log.info({ domain }, 'custom domain verified');
      }
      lookedUp();
      await this.#issue(record, signal);
      signal.throwIfAborted();
      await this.#move(id, { status: 'issued', issuedAt: this.#ports.clock.now() });
      log.info({ domain }, 'custom domain issued');
    } catch (error) {
      if (signal.aborted) return;
      log.warn({ err: error, domain }, 'custom domain failed');
      await this.#fail(record, failureOf(error));
    }
  }

  /** @throws domain_unverified */
  async #prove({ domain, verificationToken }: DomainRecord, signal: AbortSignal): Promise<void> {
    const name = challengeOf(domain);
    const { clock, lookUpTxt } = this.#ports;
    const late = new AbortController();
    const answer = lookUpTxt(name, AbortSignal.any([signal, late.signal]));
    const tooLate = (): Error => {
      late.abort();
      return new Error(`no answer within ${LOOK_UP_MS / 1_000} seconds`);
    };
    const found = await withDeadline(clock, LOOK_UP_MS, answer, tooLate).catch((cause: unknown) => {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new InstaVMError('domain_unverified', `DNS could not be asked for the TXT record ${name} (${reason})`, {
        hint: 'Verify again when the name servers of the domain answer.',
        cause,
      });
    });
    if (found.includes(verificationToken)) return;
    throw new InstaVMError(
      'domain_unverified',
      `There is no TXT record ${name} = ${verificationToken}: ${quoted(found)}`,
    );
  }

  async #issue({ accountId, domain }: DomainRecord, signal: AbortSignal): Promise<void> {
    const { certificates, clock } = this.#ports;
    // A daemon that died after the certificate came.
    const { certPresent, keyPresent, expiresAt } = await certificates.state(domain);
    if (certPresent && keyPresent && expiresAt !== null && expiresAt > clock.now()) return;
    this.#countOrder(accountId);
    const late = new AbortController();
    const issued = certificates.issue(domain, AbortSignal.any([signal, late.signal]));
    await withDeadline(clock, ISSUE_MS, issued, () => {
      late.abort();
      const minutes = ISSUE_MS / 60_000;
      return new InstaVMError('certificate_failed', `the certificate for ${domain} did not come in ${minutes} minutes`);
    });
  }

  /** @throws rate_limited */
  #countOrder(accountId: AccountId): void {
    const now = this.#ports.clock.now().getTime();
    const recent = (this.#orders.get(accountId) ?? []).filter((at) => now - at < HOUR_MS);
    const [first = now] = recent;
    if (recent.length >= MAX_ORDERS_PER_HOUR) {
      const message = `${MAX_ORDERS_PER_HOUR} certificates were ordered for this account within an hour`;
      const again = new Date(first + HOUR_MS).toISOString();
      throw new InstaVMError('rate_limited', message, { hint: `Verify the domain again after ${again}.` });
    }
    this.#orders.set(accountId, [...recent, now]);
  }

  async #fail({ id, domain }: DomainRecord, failure: DomainFailure): Promise<void> {
    const record = await this.#ports.domains.find(id);
    // While the domain is held, so that what is forgotten is nobody else's.
    if (record?.status === 'verified') await this.#forgetRest(domain);
    await this.#move(id, { status: 'failed', failure });
  }

  /** Of an order that broke off. Without one, who keeps certificates shall remember that it failed a moment ago. */
  async #forgetRest(domain: string): Promise<void> {
    const { certPresent, keyPresent } = await this.#ports.certificates.state(domain);
    if (certPresent || keyPresent) await this.#ports.certificates.forget(domain);
  }

  async #move(id: number, move: DomainMove): Promise<void> {
    if ((await this.#ports.domains.move(id, move)) === undefined)
      throw new Error(`custom domain ${id} cannot become ${move.status}`);
  }
}

const newToken = (): string =>
  `instavm-verify=${Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')}`;

function failureOf(error: unknown): DomainFailure {
  const { code, message, hint } =
    error instanceof InstaVMError ? error : new InstaVMError('internal', 'this is a fault of the server');
  return { code, message: `${message.replace(/\.$/, '')}. ${hint}` };
}

/** What was found instead, on one line whatever it is. */
function quoted(values: readonly string[]): string {
  if (values.length === 0) return 'nothing was found';
  const shown = values
    .slice(0, QUOTED_VALUES)
    .map((value) => `"${value.slice(0, QUOTED_CHARS).replaceAll(/[^\x20-\x7e]/g, '?')}"`);
  const more = values.length > QUOTED_VALUES ? ` and ${values.length - QUOTED_VALUES} more` : '';
  return `found ${shown.join(', ')}${more}`;
}

const noDomain = (id: number): InstaVMError => new InstaVMError('domain_not_found', `there is no custom domain ${id}`);

export const takenByOther = (domain: string): InstaVMError =>
  new InstaVMError('domain_taken', `${domain} belongs to another account, which has proven it`);

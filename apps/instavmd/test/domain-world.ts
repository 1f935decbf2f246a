/** Custom domains over a real store, with DNS and a certificate authority that do what a test says. */
import {
  type AccountId,
  type Clock,
  DEFAULT_LIFECYCLE,
  DEFAULT_SIZE,
  Domains,
  newIncarnationId,
  newSandboxId,
  type SandboxRecord,
  type ShareRecord,
  Shares,
  systemClock,
} from '@instavm/core';
import { domainNameProblem } from '@instavm/preview';
import { Accounts, type Database, domainRecords, openDatabase, sandboxRecords, shareRecords } from '@instavm/store';

const WEEK_MS = 7 * 86_400_000;

/** Awaited where a test wants to stand still; open unless it says so. */
export class Gate {
  #opened = Promise.withResolvers<void>();
  #arrival = Promise.withResolvers<void>();
  constructor() {
    this.#opened.resolve();
  }
  /** Somebody came since it was shut. */
  get arrived(): Promise<void> {
    return this.#arrival.promise;
  }
  shut(): void {
    this.#opened = Promise.withResolvers<void>();
    this.#arrival = Promise.withResolvers<void>();
  }
  open(): void {
    this.#opened.resolve();
  }
  async pass(signal: AbortSignal): Promise<void> {
    this.#arrival.resolve();
    const aborted = Promise.withResolvers<never>();
    signal.addEventListener('abort', () => aborted.reject(signal.reason), { once: true });
    await Promise.race([this.#opened.promise, aborted.promise]);
  }
}

export class DomainWorld {
  readonly database: Database;
  readonly accounts: Accounts;
  readonly shares: Shares;
  readonly txt = new Map<string, readonly string[] | Error>();
  readonly dns = new Gate();
  readonly authority = new Gate();
  /** What the certificate authority says to the next orders. */
  refusal: Error | undefined;
  readonly certificates = new Set<string>();
  /** In order: what was looked up, ordered and forgotten. */
  readonly events: string[] = [];
  readonly warnings: string[] = [];
  clock: Clock = systemClock;

  static async open(): Promise<DomainWorld> {
    return new DomainWorld(await openDatabase(':memory:'));
  }

  private constructor(database: Database) {
    this.database = database;
    this.accounts = new Accounts(database);
    this.shares = new Shares({
      shares: shareRecords(database),
      sandboxes: sandboxRecords(database),
      clock: systemClock,
    });
  }

  /** As a daemon makes them when it starts. */
  start(): Domains {
    const { txt, events } = this;
    return new Domains({
      domains: domainRecords(this.database),
      shares: this.shares,
      lookUpTxt: async (name, signal) => {
        events.push(`look up ${name}`);
        await this.dns.pass(signal);
        const found = txt.get(name) ?? [];
        if (found instanceof Error) throw found;
        return found;
      },
      certificates: {
        issue: async (domain, signal) => {
          events.push(`order ${domain}`);
          await this.authority.pass(signal);
          this.certificates.add(domain);
          // As one that breaks off after it wrote something.
          if (this.refusal !== undefined) throw this.refusal;
        },
        state: async (domain) => {
          const isThere = this.certificates.has(domain);
          return {
            certPresent: isThere,
            keyPresent: isThere,
            expiresAt: isThere ? new Date(Date.now() + WEEK_MS) : null,
          };
        },
        forget: async (domain) => {
          events.push(`forget ${domain}`);
          this.certificates.delete(domain);
        },
      },
      problemOf: (name) => domainNameProblem(name, 'preview.test.example'),
      clock: { now: () => this.clock.now(), schedule: (at, task) => this.clock.schedule(at, task) },
      log: { info: () => {}, warn: (fields, message) => this.warnings.push(`${message} ${JSON.stringify(fields)}`) },
    });
  }

  /** @returns its id and API key */
  async account(email: string): Promise<{ id: AccountId; key: string }> {
    let key = '';
    const { id } = await this.accounts.createWithKey(email, email, 'first', (given) => {
      key = given;
    });
    return { id, key };
  }

  async share(accountId: AccountId): Promise<ShareRecord> {
    const record: SandboxRecord = {
      ...{ id: newSandboxId(), accountId, state: 'running', stateReason: null, endCause: null, epoch: 1 },
      ...{ incarnationId: newIncarnationId(), size: DEFAULT_SIZE, ttlSeconds: 300, metadata: {}, env: {} },
      ...{ createdAt: new Date(), startedAt: new Date(), endedAt: null, expiresAt: new Date(Date.now() + 100_000) },
      ...{
        egress: null,
        lifecycle: DEFAULT_LIFECYCLE,
        savedIn: null,
        savedBytes: null,
        leaseLeftMs: null,
        snapshotId: null,
      },
    };
    await sandboxRecords(this.database).insert(record);
    return this.shares.open(record, 8000);
  }
}

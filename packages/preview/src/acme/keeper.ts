/**
 * Keeps certificates: which names have one, orders under way, renewal until a name is forgotten. One order at a time a name, few at once in all;
 * a certificate stays in use for as long as nothing newer has come, whatever goes wrong.
 */
import { createSecureContext, type SecureContext } from 'node:tls';
import type { Clock, LifecycleLog } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import pLimit from 'p-limit';
import type { Authority } from './authority.ts';
import type { Certificate } from './certificate.ts';
import type { DomainCertificateState, DomainCertificates } from './domain-certificates.ts';
import { domainNameProblem } from './names.ts';
import { pauseAfter, renewalOf } from './renewal.ts';
import type { Solver } from './solver.ts';
import type { CertificateStore } from './store.ts';

const ORDERS_AT_ONCE = 2;
const ORDERS_WAITING = 64;
/** After a failed order: whoever asks in a loop does not use up what the authority allows. */
const PAUSE_AFTER_FAILURE_MS = 30_000;
/** After an order that went well, should a certificate be due as soon as it is there: a clock is wrong, or lifetimes are minutes. */
const PAUSE_AFTER_ISSUE_MS = 60_000;
/** Node's timers end at 24.8 days, and clocks are set. */
const LOOK_AGAIN_MS = 12 * 3_600_000;

export type KeeperOptions = {
  readonly authority: Pick<Authority, 'order'>;
  readonly store: CertificateStore;
  readonly solversFor: (name: string) => readonly Solver[];
  readonly previewDomain: string;
  readonly clock: Clock;
  readonly log: LifecycleLog;
};

type Installed = { readonly certificate: Certificate; readonly context: SecureContext };

type Flight = { readonly stop: AbortController; readonly done: Promise<void>; waiting: number };

/** That a name has a certificate, now and later. */
type Plan = { cancel: () => void; failures: number; problem: string };

export class CertificateKeeper implements DomainCertificates {
  readonly #options: KeeperOptions;
  readonly #inTurn = pLimit(ORDERS_AT_ONCE);
  readonly #installed = new Map<string, Installed>();
  readonly #flights = new Map<string, Flight>();
  readonly #plans = new Map<string, Plan>();
  readonly #failed = new Map<string, { readonly at: number; readonly reason: string }>();
  #isClosed = false;

  private constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** With what is on disk in use; nothing is ordered before `start`. */
  static async open(options: KeeperOptions): Promise<CertificateKeeper> {
    const keeper = new CertificateKeeper(options);
    for (const name of await options.store.names()) {
      try {
        const certificate = await options.store.load(name);
        if (certificate) keeper.#install(name, certificate);
      } catch (error) {
        options.log.warn({ err: error, domain: name }, 'a certificate on disk is not usable');
      }
    }
    return keeper;
  }

  /** @param wanted names that shall have one besides those that have */
  start(wanted: readonly string[]): void {
    for (const name of new Set([...this.#installed.keys(), ...wanted])) this.#keep(name, 0);
  }

  installed(name: string): Installed | undefined {
    return this.#installed.get(name);
  }

  async issue(domain: string, signal: AbortSignal): Promise<void> {
    this.#check(domain);
    const now = this.#options.clock.now();
    const current = this.#installed.get(domain);
    if (current && now < renewalOf(current.certificate, 0)) return;
    const failed = this.#failed.get(domain);
    if (failed && now.getTime() - failed.at < PAUSE_AFTER_FAILURE_MS) {
      const pause = Math.ceil((failed.at + PAUSE_AFTER_FAILURE_MS - now.getTime()) / 1_000);
      throw new InstaVMError('rate_limited', `The last order failed a moment ago. ${failed.reason}`, {
        hint: `Wait ${pause} s, then try again.`,
      });
    }
    await this.#order(domain, signal);
  }

  async state(domain: string): Promise<DomainCertificateState> {
    this.#check(domain);
    const { cert, key } = await this.#options.store.sections(domain);
    const expiresAt = this.#installed.get(domain)?.certificate.expiresAt ?? null;
    return { certPresent: cert !== undefined, keyPresent: key !== undefined, expiresAt };
  }

  async forget(domain: string): Promise<void> {
    this.#check(domain);
    this.#drop(domain);
    const flight = this.#flights.get(domain);
    flight?.stop.abort(new InstaVMError('certificate_failed', `The domain ${domain} was removed.`));
    await flight?.done.catch(() => {}); // it was wanted by somebody else, who is told
    this.#drop(domain); // it may have ended well at the last moment
    this.#failed.delete(domain);
    await this.#options.store.delete(domain);
  }

  /** Ends what is under way, and returns when it has ended. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const { cancel } of this.#plans.values()) cancel();
    this.#plans.clear();
    const flights = [...this.#flights.values()];
    for (const { stop } of flights) stop.abort(new InstaVMError('shutting_down', 'The server is stopping.'));
    await Promise.allSettled(flights.map(({ done }) => done));
  }

  #check(domain: string): void {
    const problem = domainNameProblem(domain, this.#options.previewDomain);
    if (problem !== undefined) throw new InstaVMError('invalid_argument', `The domain ${problem}.`);
  }

  #drop(name: string): void {
    this.#plans.get(name)?.cancel();
    this.#plans.delete(name);
    this.#installed.delete(name);
  }

  /** Joins the order for the name that is under way, or places one. It is given up when nobody waits for it any more. */
  async #order(name: string, signal: AbortSignal | undefined): Promise<void> {
    let flight = this.#flights.get(name);
    while (flight?.stop.signal.aborted) {
      await flight.done.catch(() => {}); // that it was given up is known
      flight = this.#flights.get(name);
    }
    signal?.throwIfAborted();
    flight ??= this.#take(name);
    flight.waiting += 1;
    const aborted = Promise.withResolvers<never>();
    const onAbort = (): void => aborted.reject(signal?.reason);
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await Promise.race([flight.done, aborted.promise]);
    } finally {
      signal?.removeEventListener('abort', onAbort);
      flight.waiting -= 1;
      if (flight.waiting === 0) flight.stop.abort(signal?.reason);
    }
  }

  #take(name: string): Flight {
    if (this.#isClosed) throw new InstaVMError('shutting_down', 'The server is stopping.');
    if (this.#flights.size >= ORDERS_WAITING) {
      throw new InstaVMError('rate_limited', `${ORDERS_WAITING} orders for certificates are under way.`);
    }
    const stop = new AbortController();
    const done = this.#inTurn(() => this.#obtain(name, stop.signal)).finally(() => this.#flights.delete(name));
    done.catch(() => {}); // every waiter is told
    const flight = { stop, done, waiting: 0 };
    this.#flights.set(name, flight);
    return flight;
  }

  async #obtain(name: string, signal: AbortSignal): Promise<void> {
    const { authority, store, solversFor, clock, log } = this.#options;
    signal.throwIfAborted();
    try {
      const certificate = await authority.order(name, solversFor(name), signal);
      signal.throwIfAborted();
      await store.save(name, certificate);
      this.#install(name, certificate);
      this.#failed.delete(name);
      this.#keep(name, PAUSE_AFTER_ISSUE_MS);
      log.info({ domain: name, expiresAt: certificate.expiresAt }, 'certificate issued');
    } catch (error) {
      if (!signal.aborted) this.#noteFailure(name, String((error as Error).message), clock.now().getTime());
      throw error;
    }
  }

  #install(name: string, certificate: Certificate): void {
    const { cert, key } = certificate;
    this.#installed.set(name, { certificate, context: createSecureContext({ cert, key, minVersion: 'TLSv1.2' }) });
  }

  #noteFailure(name: string, reason: string, at: number): void {
    for (const [other, failed] of this.#failed) {
      if (at - failed.at >= PAUSE_AFTER_FAILURE_MS) this.#failed.delete(other);
    }
    this.#failed.set(name, { at, reason });
  }

  /** Orders when it is time, which is at once when there is none, and ever again. */
  #keep(name: string, pauseMs: number): void {
    if (this.#isClosed) return;
    this.#plans.get(name)?.cancel();
    const plan: Plan = { cancel: () => {}, failures: 0, problem: '' };
    this.#plans.set(name, plan);
    const earliest = this.#options.clock.now().getTime() + pauseMs;
    const installed = this.#installed.get(name);
    const due = installed ? renewalOf(installed.certificate, Math.random()).getTime() : earliest;
    this.#wait(name, plan, new Date(Math.max(due, earliest)));
  }

  #wait(name: string, plan: Plan, at: Date): void {
    const { clock } = this.#options;
    const next = Math.min(at.getTime(), clock.now().getTime() + LOOK_AGAIN_MS);
    plan.cancel = clock.schedule(new Date(next), () => {
      if (clock.now() < at) this.#wait(name, plan, at);
      else void this.#renew(name, plan);
    });
  }

  async #renew(name: string, plan: Plan): Promise<void> {
    const { clock, log } = this.#options;
    try {
      await this.#order(name, undefined);
    } catch (error) {
      if (this.#plans.get(name) !== plan) return; // forgotten, or closed
      plan.failures += 1;
      const wanted = error instanceof InstaVMError ? Number(error.details?.retry_after_seconds ?? 0) * 1_000 : 0;
      const at = new Date(clock.now().getTime() + pauseAfter(plan.failures, wanted, Math.random()));
      const problem = error instanceof Error ? error.message : String(error);
      if (problem !== plan.problem) {
        const usableUntil = this.#installed.get(name)?.certificate.expiresAt ?? null;
        log.warn(
          { err: error, domain: name, usableUntil, nextAt: at },
          'a certificate was not issued; tried again later',
        );
      }
      plan.problem = problem;
      this.#wait(name, plan, at);
    }
  }
}

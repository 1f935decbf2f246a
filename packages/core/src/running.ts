/**
 * What a sandbox holds while it has a microVM: the incarnation, the timer of its lease, and the watch over its idleness. Its record is
 * kept elsewhere; what the news mean is its owner's to decide.
 */
import { Activity } from './activity.ts';
import type { ConstructionPorts, Personalized } from './construction.ts';
import type { GuestLink } from './guest.ts';
import { Incarnation } from './incarnation.ts';

export type RunningNews<Guest extends GuestLink> = {
  /** It died, or its guest does not answer. May come late; the owner compares. */
  readonly lost: (incarnation: Incarnation<Guest>, reason: string, diagnostics: string) => void;
  readonly expired: () => void;
  readonly idle: () => void;
};

export class Running<Guest extends GuestLink> {
  readonly #ports: ConstructionPorts<Guest>;
  readonly #news: RunningNews<Guest>;
  readonly #activity: Activity;
  #incarnation: Incarnation<Guest> | undefined;
  #cancelLease: () => void = () => {};

  constructor(ports: ConstructionPorts<Guest>, news: RunningNews<Guest>) {
    this.#ports = ports;
    this.#news = news;
    this.#activity = new Activity(ports.clock, news.idle);
  }

  get incarnation(): Incarnation<Guest> | undefined {
    return this.#incarnation;
  }

  get isUsed(): boolean {
    return !this.#activity.isIdle;
  }

  hold(): () => void {
    return this.#activity.hold();
  }

  /** From here on its death, its lease and its idleness are noticed. */
  begin(prepared: Personalized<Guest>, expiresAt: Date, idleSuspendSeconds: number | null): void {
    const incarnation: Incarnation<Guest> = new Incarnation(this.#ports, prepared, (reason, diagnostics) =>
      this.#news.lost(incarnation, reason, diagnostics),
    );
    this.#incarnation = incarnation;
    this.expireAt(expiresAt);
    this.watchIdleness(idleSuspendSeconds);
  }

  expireAt(instant: Date): void {
    this.#cancelLease();
    this.#cancelLease = this.#ports.clock.schedule(instant, () => this.#news.expired());
  }

  watchIdleness(limitSeconds: number | null): void {
    if (this.#incarnation !== undefined) this.#activity.watch(limitSeconds);
  }

  /** Nothing of it is heard any more. @returns what ran, for the caller to release */
  end(): Incarnation<Guest> | undefined {
    const incarnation = this.#incarnation;
    this.#incarnation = undefined;
    this.#cancelLease();
    this.#activity.stop();
    return incarnation;
  }
}

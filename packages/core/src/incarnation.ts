/** One run of a microVM for a sandbox, and its guest: made phase by phase, kept attached, ended in reverse. */
import { CleanupStack } from './cleanup.ts';
import type { Clock } from './clock.ts';
import type { GuestConnector, GuestIdentity, GuestLink } from './guest.ts';
import type { IncarnationId } from './ids.ts';
import type { MicroVm } from './vmm.ts';

/** A channel that drops again and again belongs to a broken guest, not to a slip of the host. */
const MAX_REATTACHMENTS = 16;
/** How long the VMM's own end is awaited when its channel dropped: it says more about the reason. */
const EXIT_GRACE_MS = 1_000;
/** SYNC and Personalize of a clone: tens of milliseconds; a busy emulating host may need seconds. */
const ATTACH_DEADLINE_MS = 30_000;

export interface LifecycleLog {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

export type IncarnationDependencies<Guest extends GuestLink> = {
  readonly connector: GuestConnector<Guest>;
  readonly clock: Clock;
  readonly log: LifecycleLog;
};

/** `onLost` is called at most once, when it ended without having been asked to; never after `end` or `release`. */
export type OnLost<Guest extends GuestLink> = (
  incarnation: Incarnation<Guest>,
  reason: string,
  diagnostics: string,
) => void;

export class Incarnation<Guest extends GuestLink> {
  readonly id: IncarnationId;
  readonly vm: MicroVm;
  readonly #deps: IncarnationDependencies<Guest>;
  readonly #onLost: OnLost<Guest>;
  readonly #cleanup = new CleanupStack();
  #guest: Guest | undefined;
  #reattaching: Promise<void> | undefined;
  #reattachments = 0;
  /** `paused`: its end is expected, and news of it wait. */
  #watch: 'on' | 'paused' | 'over' = 'on';
  #news: readonly [reason: string, diagnostics: string] | undefined;

  private constructor(deps: IncarnationDependencies<Guest>, vm: MicroVm, onLost: OnLost<Guest>) {
    this.#deps = deps;
    this.id = vm.incarnationId;
    this.vm = vm;
    this.#onLost = onLost;
    this.#cleanup.push(() => vm.kill());
  }

  /** Attaches to the guest of a microVM that was just restored and gives it its identity. Whatever fails, the microVM is ended. */
  static async begin<Guest extends GuestLink>(
    deps: IncarnationDependencies<Guest>,
    vm: MicroVm,
    identity: GuestIdentity,
    onLost: OnLost<Guest>,
  ): Promise<Incarnation<Guest>> {
    const incarnation = new Incarnation(deps, vm, onLost);
    try {
      const guest = await incarnation.#attach();
      await guest.personalize(identity, ATTACH_DEADLINE_MS);
      vm.exited.then((exit) => {
        if (!exit.requested)
          incarnation.#lose(`the microVM ended by itself (${exit.signal ?? exit.code})`, exit.diagnostics);
      });
      incarnation.#keepAttached(guest);
      return incarnation;
    } catch (error) {
      await incarnation.end().catch((cause: unknown) => deps.log.warn({ err: cause }, 'clean-up after a failed start'));
      throw error;
    }
  }

  /** Waits while the control channel is opened again. */
  async guest(): Promise<Guest> {
    await this.#reattaching;
    if (this.#guest === undefined) throw new Error('an incarnation is only handed out with its guest');
    return this.#guest;
  }

  /** Released before the microVM is. */
  onEnd(release: () => void): void {
    this.#cleanup.push(release);
  }

  /** Ends the microVM and all that belongs to it. Idempotent. @throws AggregateError of what could not be released */
  end(): Promise<void> {
    this.#watch = 'over';
    return this.#cleanup.run();
  }

  /** Its end is expected from here on; undone by `resumeWatch`. */
  pauseWatch(): void {
    this.#watch = 'paused';
  }

  /** After a suspension that failed: the guest runs on, or what ended it meanwhile is told now. */
  resumeWatch(): void {
    this.#watch = 'on';
    if (this.#news) this.#lose(...this.#news);
    else if (this.#guest) this.#keepAttached(this.#guest);
  }

  async #attach(): Promise<Guest> {
    const guest = await this.#deps.connector.attach(await this.vm.connect('control'), ATTACH_DEADLINE_MS);
    this.#cleanup.push(() => guest.close());
    this.#guest = guest;
    return guest;
  }

  /** A control stream that drops while the microVM lives is opened again; only when that fails is the sandbox lost. */
  #keepAttached(guest: Guest): void {
    guest.closed.then(() => {
      if (this.#watch !== 'on' || this.#guest !== guest || this.#reattaching) return;
      this.#reattaching = this.#reattach().finally(() => {
        this.#reattaching = undefined;
      });
    });
  }

  /** Never rejects. */
  async #reattach(): Promise<void> {
    const { log, clock } = this.#deps;
    try {
      if (++this.#reattachments > MAX_REATTACHMENTS) throw new Error('the control channel dropped too often');
      log.warn({ incarnationId: this.id }, 'the control channel dropped; attaching again');
      const guest = await this.#attach();
      if (this.#watch === 'over') return guest.close();
      this.#keepAttached(guest);
    } catch (error) {
      const grace = new Promise<void>((resolve) => {
        clock.schedule(new Date(clock.now().getTime() + EXIT_GRACE_MS), resolve);
      });
      await Promise.race([this.vm.exited, grace]);
      this.#lose('the guest agent no longer answers', String(error));
    }
  }

  #lose(reason: string, diagnostics: string): void {
    if (this.#watch === 'paused') this.#news = [reason, diagnostics];
    if (this.#watch !== 'on') return;
    this.#watch = 'over';
    this.#onLost(this, reason, diagnostics);
  }
}

/**
 * One run of a microVM for a sandbox: keeps its guest attached, notices its death, saves it. It knows nothing of records; what becomes
 * of the sandbox is its owner's to decide.
 */
import { InstaVMError } from '@instavm/wire';
import type { CleanupStack } from './cleanup.ts';
import { type ConstructionPorts, connectGuest, type Personalized } from './construction.ts';
import { withDeadline } from './deadline.ts';
import type { EgressLink } from './egress.ts';
import type { GuestIdentity, GuestLink } from './guest.ts';
import type { IncarnationId } from './ids.ts';
import { DEADLINES_MS } from './states.ts';
import type { MicroVm, VmSnapshot } from './vmm.ts';

/** A channel that drops again and again belongs to a broken guest, not to a slip of the host. */
const MAX_REATTACHMENTS = 16;
/** How long the VMM's own end is awaited when its channel dropped: it says more about the reason. */
const EXIT_GRACE_MS = 1_000;
const CALL_DEADLINE_MS = 30_000;
/** An agent that is alive answers in a millisecond; one that answers none of three is wedged. */
const PING_INTERVAL_MS = 60_000;
const MAX_MISSED_PINGS = 3;
/** One that is not heard of for so long is not asked for anything that takes time. */
const ANSWER_DEADLINE_MS = 10_000;
/** What a guest has written and not yet flushed may be all that its memory holds. */
const SYNC_DEADLINE_MS = 60_000;

type Saving = {
  readonly then: 'continue' | 'end';
  /** Resolves when it was saved, or could not be. */
  readonly done: Promise<void>;
  /** How often the channel may still end with it: when the guest is held, and when it is let go after a failure. */
  excuses: number;
};

/** News of an incarnation; may come late, so the owner compares. */
export type Lost = (reason: string, diagnostics: string) => void;

export class Incarnation<Guest extends GuestLink> {
  readonly id: IncarnationId;
  readonly network: EgressLink;
  readonly #ports: ConstructionPorts<Guest>;
  readonly #vm: MicroVm;
  readonly #cleanup: CleanupStack;
  readonly #lost: Lost;
  #guest: Guest;
  /** Pending while there is no channel that could be used. */
  #detached: Promise<void> | undefined;
  #reattachments = 0;
  #saving: Saving | undefined;
  #isReleased = false;
  #cancelPing: () => void = () => {};
  #hasExited = false;
  #isLost = false;

  /** @param lost called at most a few times, when the microVM or its guest is gone for good */
  constructor(ports: ConstructionPorts<Guest>, { id, vm, guest, network, cleanup }: Personalized<Guest>, lost: Lost) {
    this.id = id;
    this.network = network;
    this.#ports = ports;
    this.#vm = vm;
    this.#guest = guest;
    this.#cleanup = cleanup;
    this.#lost = lost;
    cleanup.push(() => this.#guest.close());
    cleanup.push(() => this.#cancelPing());
    vm.exited.then((exit) => {
      this.#hasExited = true;
      if (!exit.requested) this.#giveUp(`the microVM ended by itself (${exit.signal ?? exit.code})`, exit.diagnostics);
    });
    this.#keepAttached();
    this.#watch(0);
  }

  /** The news of that are told; what `guest` hands out answers nobody. */
  get isLost(): boolean {
    return this.#isLost;
  }

  /** Waits while the channel is opened again. */
  async guest(): Promise<Guest> {
    while (this.#detached !== undefined) await this.#detached;
    return this.#guest;
  }

  /** Ends the microVM and lets go of everything. A second call joins the first. @throws when something stays */
  release(): Promise<void> {
    this.#isReleased = true;
    const tooLate = (): Error => new Error('the microVM did not end in time');
    return withDeadline(this.#ports.clock, DEADLINES_MS.stopping, this.#cleanup.run(), tooLate);
  }

  /** Leaves the microVM to the next daemon. */
  leave(): void {
    this.#isReleased = true;
    this.#cancelPing();
    this.network.close();
    this.#guest.close();
  }

  /**
   * Writes what it is to `directory`. With `continue` it runs on, attached as before and with its clock set; with `end` its microVM is gone
   * afterwards. After a failure it runs on as well, unless it is reported as lost.
   * @param tooLate called when what was given up is written all the same: nobody refers to it
   * @throws snapshot_failed, capacity_unavailable, guest_unresponsive
   */
  async save(
    directory: string,
    then: 'continue' | 'end',
    identity: GuestIdentity,
    flushed: () => void,
    tooLate: () => void,
  ): Promise<VmSnapshot> {
    const guest = await this.guest();
    await guest.ping(ANSWER_DEADLINE_MS);
    await guest.sync(SYNC_DEADLINE_MS);
    flushed();
    const { promise: done, resolve: isDone } = Promise.withResolvers<void>();
    this.#saving = { then, done, excuses: 2 };
    try {
      const saved = await this.#snapshot(directory, then, tooLate);
      if (then === 'end') this.#isReleased = true;
      return saved;
    } finally {
      isDone();
      if (this.#hasExited) this.#giveUp('the microVM ended while it was saved', '');
      else if (!this.#isReleased) await this.#goOn(identity);
      // Only now: that the channel ended with it may have been noticed a moment ago.
      this.#saving = undefined;
    }
  }

  /** Its clock stood still, and on some backends its channel ended. A guest that does not take the new time is noticed as any mute one. */
  async #goOn(identity: GuestIdentity): Promise<void> {
    this.network.forgive();
    try {
      const guest = await this.guest();
      await guest.personalize(identity, CALL_DEADLINE_MS).catch(async (error: unknown) => {
        const attached = await this.guest();
        if (attached === guest) throw error;
        // Its channel had ended, which nobody had noticed yet.
        await attached.personalize(identity, CALL_DEADLINE_MS);
      });
    } catch (error) {
      this.#ports.log.warn({ incarnationId: this.id, err: error }, 'setting the clock after a pause');
    }
  }

  async #snapshot(directory: string, then: 'continue' | 'end', tooLate: () => void): Promise<VmSnapshot> {
    const expired = (): Error => {
      // Nobody knows what it is doing now, so it is not let run on.
      this.#giveUp('it could not be saved in time', '');
      return new InstaVMError('snapshot_failed', 'the microVM could not be saved in time');
    };
    const saving = this.#vm.snapshot(directory, then);
    return withDeadline(this.#ports.clock, DEADLINES_MS.suspending, saving, expired, tooLate);
  }

  async #attach(): Promise<Guest> {
    const guest = await connectGuest(this.#ports.connector, this.#vm);
    if (this.#isReleased) guest.close();
    this.#guest = guest;
    return guest;
  }

  /** A control stream that drops while the microVM lives is opened again; only when that fails is the guest lost. */
  #keepAttached(): void {
    const guest = this.#guest;
    guest.closed.then(() => {
      if (this.#isReleased || this.#guest !== guest) return;
      const saving = this.#saving !== undefined && this.#saving.excuses-- > 0 ? this.#saving : undefined;
      const again = this.#reattach(saving).then(() => {
        if (this.#detached === again) this.#detached = undefined;
      });
      this.#detached = again;
    });
  }

  /**
   * Never rejects.
   * @param saving what it was saved for when the channel dropped: that is no fault of the guest's
   */
  async #reattach(saving: Saving | undefined): Promise<void> {
    const { log, clock } = this.#ports;
    try {
      if (saving?.then === 'end') await saving.done;
      if (this.#isReleased) return;
      if (saving === undefined && ++this.#reattachments > MAX_REATTACHMENTS)
        throw new Error('the control channel dropped too often');
      const level = saving === undefined ? 'warn' : 'info';
      log[level]({ incarnationId: this.id }, 'the control channel dropped; attaching again');
      await this.#attach();
      this.#keepAttached();
    } catch (error) {
      const grace = new Promise<void>((resolve) => {
        clock.schedule(new Date(clock.now().getTime() + EXIT_GRACE_MS), resolve);
      });
      await Promise.race([this.#vm.exited, grace]);
      this.#giveUp('the guest agent no longer answers', String(error));
    }
  }

  #watch(missed: number): void {
    const { clock } = this.#ports;
    this.#cancelPing = clock.schedule(new Date(clock.now().getTime() + PING_INTERVAL_MS), () => {
      this.#ping().then((answered) => {
        if (this.#isReleased) return;
        if (!answered && missed + 1 >= MAX_MISSED_PINGS) this.#giveUp('the guest agent no longer answers', 'pings');
        else this.#watch(answered ? 0 : missed + 1);
      });
    });
  }

  async #ping(): Promise<boolean> {
    try {
      await (await this.guest()).ping(CALL_DEADLINE_MS);
      return true;
    } catch {
      return false;
    }
  }

  #giveUp(reason: string, diagnostics: string): void {
    if (this.#isReleased) return;
    this.#isLost = true;
    this.#lost(reason, diagnostics);
  }
}

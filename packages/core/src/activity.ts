/** Whether anyone uses a sandbox: commands, viewers of terminals, files and previews hold it while they last. */
import type { Clock } from './clock.ts';

export class Activity {
  readonly #clock: Clock;
  readonly #onIdle: () => void;
  #holds = 0;
  #limitSeconds: number | null = null;
  #isWatched = false;
  #cancel: () => void = () => {};

  /** @param onIdle called when nobody used it for the limit */
  constructor(clock: Clock, onIdle: () => void) {
    this.#clock = clock;
    this.#onIdle = onIdle;
  }

  get isIdle(): boolean {
    return this.#holds === 0;
  }

  /** @returns how to let go; idempotent */
  hold(): () => void {
    this.#holds++;
    this.#cancel();
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#holds--;
      this.#arm();
    };
  }

  /** From now on; null: idleness has no limit. */
  watch(limitSeconds: number | null): void {
    this.#limitSeconds = limitSeconds;
    this.#isWatched = true;
    this.#arm();
  }

  /** While there is no microVM. */
  stop(): void {
    this.#isWatched = false;
    this.#cancel();
  }

  #arm(): void {
    this.#cancel();
    if (!this.#isWatched || this.#holds > 0 || this.#limitSeconds === null) return;
    const at = new Date(this.#clock.now().getTime() + this.#limitSeconds * 1000);
    this.#cancel = this.#clock.schedule(at, this.#onIdle);
  }
}

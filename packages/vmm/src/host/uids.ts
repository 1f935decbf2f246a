/** Which uid each jail has: one of a range, and no two jails of a daemon the same. A gid of the same number comes with it. */
import { InstaVMError } from '@instavm/wire';

/** Nothing else on the host may use these ids, another daemon's range included. */
export type UidRange = { readonly first: number; readonly count: number };

export class Uids {
  readonly #range: UidRange;
  readonly #taken = new Set<number>();
  #next = 0;

  constructor(range: UidRange) {
    this.#range = range;
  }

  /** For a jail of an earlier daemon, which has it until {@link release}. */
  claim(uid: number): void {
    this.#taken.add(uid);
  }

  /** Takes them in turn, so that what a dead jail left behind is no new one's at once. @throws capacity_unavailable */
  take(): number {
    const { first, count } = this.#range;
    for (let tried = 0; tried < count; tried++) {
      const uid = first + this.#next;
      this.#next = (this.#next + 1) % count;
      if (this.#taken.has(uid)) continue;
      this.#taken.add(uid);
      return uid;
    }
    throw new InstaVMError('capacity_unavailable', `all ${count} user ids for microVMs are taken`);
  }

  release(uid: number): void {
    this.#taken.delete(uid);
  }
}

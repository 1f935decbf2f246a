/** Which uid each jail has: one of a range, and no two jails of a daemon the same. A gid of the same number comes with it. */
import { readdir, readFile } from 'node:fs/promises';
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

/**
 * Processes with a user of the range that are in no jail of this daemon: another's, which may have been started with the same range. Two microVMs
 * with one user are less apart than their daemons believe.
 * @param parentCgroup of this daemon's jails, relative to the mount
 */
export async function strangersAmong({ first, count }: UidRange, parentCgroup: string): Promise<number[]> {
  const strangers: number[] = [];
  for (const pid of (await readdir('/proc')).filter((entry) => /^\d+$/.test(entry))) {
    // It may end between two reads, and is no stranger then.
    const read = (name: string): Promise<string> => readFile(`/proc/${pid}/${name}`, 'utf8').catch(() => '');
    const uid = Number(/^Uid:\t(\d+)/m.exec(await read('status'))?.[1] ?? Number.NaN);
    if (!(uid >= first && uid < first + count)) continue;
    if (!(await read('cgroup')).includes(`/${parentCgroup}/`)) strangers.push(Number(pid));
  }
  return strangers;
}

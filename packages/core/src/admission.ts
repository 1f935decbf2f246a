/**
 * Whether the host and an account have room for another microVM or snapshot. It refuses early, with the time after which to ask
 * again, because the alternative is the kernel's choice of a victim.
 */
import { InstaVMError } from '@instavm/wire';
import type { AccountId } from './ids.ts';
import { type Quotas, requireQuota } from './quotas.ts';
import type { MachineSize } from './vmm.ts';

/** What the host has now. Read at every decision, so both must be cheap. */
export interface HostResources {
  availableMemoryMib(): number;
  /** On the filesystem of snapshots and overlays. */
  freeDiskMib(): number;
}

export type AdmissionLimits = {
  /** Memory that stays free for the host and for what running guests have yet to touch. */
  readonly memoryReserveMib: number;
  readonly diskReserveMib: number;
};

/** What an account has running, or is about to. */
export type Alive = Pick<Quotas, 'sandboxes' | 'vcpus' | 'memoryMib'>;

/** A fresh clone touches 70 to 140 MiB of its own within its first second. */
const CLONE_MIB = 160;
const RETRY_AFTER_MS = 2_000;
/** A full disk empties at the pace of people. */
const DISK_RETRY_AFTER_MS = 30_000;

export class Admission {
  readonly #host: HostResources;
  readonly #limits: AdmissionLimits;
  readonly #aliveOf: (accountId: AccountId) => Alive;
  /** Of microVMs that are being made and have not touched it yet. */
  #promisedMib = 0;
  #isClosed = false;

  constructor(host: HostResources, limits: AdmissionLimits, aliveOf: (accountId: AccountId) => Alive) {
    this.#host = host;
    this.#limits = limits;
    this.#aliveOf = aliveOf;
  }

  close(): void {
    this.#isClosed = true;
  }

  /**
   * Asked in the same turn in which a state changes, so that two cannot both be the last.
   * @returns to be called when the microVM runs or has failed
   * @throws shutting_down, quota_exceeded, capacity_unavailable
   */
  admit(accountId: AccountId, size: MachineSize, quotas: Quotas): () => void {
    if (this.#isClosed) throw new InstaVMError('shutting_down', 'the daemon is stopping');
    const alive = this.#aliveOf(accountId);
    requireQuota(quotas, 'sandboxes', alive.sandboxes, 1);
    requireQuota(quotas, 'vcpus', alive.vcpus, size.vcpus);
    requireQuota(quotas, 'memoryMib', alive.memoryMib, size.memoryMib);
    const neededMib = Math.min(size.memoryMib, CLONE_MIB);
    if (!this.hasMemoryFor(neededMib)) {
      throw new InstaVMError('capacity_unavailable', 'the host has too little free memory for another microVM', {
        details: { retryAfterMs: RETRY_AFTER_MS, availableMib: Math.floor(this.#host.availableMemoryMib()) },
      });
    }
    this.checkDisk(0);
    this.#promisedMib += neededMib;
    let isPromised = true;
    return () => {
      if (isPromised) this.#promisedMib -= neededMib;
      isPromised = false;
    };
  }

  /** Beside what is reserved and promised. */
  hasMemoryFor(mib = CLONE_MIB): boolean {
    return this.#host.availableMemoryMib() - this.#promisedMib - mib >= this.#limits.memoryReserveMib;
  }

  /** @throws capacity_unavailable */
  checkDisk(mib: number): void {
    const free = this.#host.freeDiskMib();
    if (free - mib >= this.#limits.diskReserveMib) return;
    throw new InstaVMError('capacity_unavailable', 'the host has too little free disk', {
      details: { retryAfterMs: DISK_RETRY_AFTER_MS, freeMib: Math.floor(free) },
    });
  }
}

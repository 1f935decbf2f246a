/** How much an account may have at once. Who sets it is not core's. */
import { InstaVMError } from '@instavm/wire';
import type { AccountId } from './ids.ts';

export type Quotas = {
  /** MicroVMs at once. */
  readonly sandboxes: number;
  /** Of all of them together. */
  readonly vcpus: number;
  readonly memoryMib: number;
  readonly snapshots: number;
  /** Of snapshots and of what suspended sandboxes keep. */
  readonly storedMib: number;
};

export interface QuotaSource {
  of(accountId: AccountId): Promise<Quotas>;
}

const WORDS: Readonly<Record<keyof Quotas, readonly [sentence: string, hint: string]>> = {
  sandboxes: ['sandboxes run', 'End sandboxes that are no longer needed.'],
  vcpus: ['vCPUs are taken by what runs', 'End sandboxes, or make smaller ones.'],
  memoryMib: ['MiB of memory are taken by what runs', 'End sandboxes, or make smaller ones.'],
  snapshots: ['snapshots are kept', 'Delete snapshots that are no longer needed.'],
  storedMib: [
    'MiB are stored by snapshots and suspended sandboxes',
    'Delete snapshots, or end suspended sandboxes, that are no longer needed.',
  ],
};

/** @param more what is asked for. @throws quota_exceeded, when it does not fit beside what is used already */
export function requireQuota(quotas: Quotas, quota: keyof Quotas, used: number, more: number): void {
  const limit = quotas[quota];
  if (used + more <= limit) return;
  const [sentence, hint] = WORDS[quota];
  throw new InstaVMError('quota_exceeded', `${Math.ceil(used)} ${sentence}, and this account may have ${limit}`, {
    hint,
    details: {
      quota: quota.replaceAll(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`),
      limit,
      used: Math.ceil(used),
    },
  });
}

/** How the sampler comes by what it needs: from guests that run anyway, and from the owner of each sandbox. */
import type { SandboxRecord, SandboxService, UsageObserver } from '@instavm/core';
import type { Guest } from '../guest/guest.ts';
import type { GuestNumbers } from './sampler.ts';

const DEADLINE_MS = 5_000;

/** Wakes nothing, and does not count as use. @throws when it does not run, or does not answer */
export async function guestNumbers(
  sandboxes: SandboxService<Guest>,
  { accountId, id }: SandboxRecord,
): Promise<GuestNumbers> {
  const guest = await (await sandboxes.get(accountId, id)).guest();
  return numbersOf(await guest.stats(DEADLINE_MS));
}

export const numbersOf = (told: Awaited<ReturnType<Guest['stats']>>): GuestNumbers => ({
  memoryTotalBytes: Number(told.memoryTotalBytes),
  memoryAvailableBytes: Number(told.memoryAvailableBytes),
  diskTotalBytes: Number(told.diskTotalBytes),
  diskFreeBytes: Number(told.diskFreeBytes),
  processes: told.processes,
  cpuTimeMs: Number(told.cpuTimeMs),
});

/** Tells two of the same. */
export const both = (one: UsageObserver, other: UsageObserver): UsageObserver => ({
  began(record) {
    one.began(record);
    other.began(record);
  },
  ended(record) {
    one.ended(record);
    other.ended(record);
  },
});

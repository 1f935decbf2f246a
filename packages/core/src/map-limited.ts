/** Runs an operation over items, a bounded number at once. */
import pLimit from 'p-limit';

/** @throws the first error, when all have ended */
export async function mapLimited<T>(
  items: readonly T[],
  limit: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const inTurn = pLimit(limit);
  const ends = await Promise.allSettled(items.map((item) => inTurn(work, item)));
  for (const end of ends) if (end.status === 'rejected') throw end.reason;
}

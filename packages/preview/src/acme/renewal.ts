/** When a certificate is renewed, and when again after that failed (pure). */

const RENEW_AT = 2 / 3;
/** Of the lifetime, so that what was issued at once is not renewed at once. */
const SPREAD = 0.03;
/** Authorities allow some five failures an hour and name. */
const RETRY_FIRST_MS = 5 * 60_000;
const RETRY_LONGEST_MS = 6 * 3_600_000;
const RETRY_JITTER = 0.1;

/** @param luck 0 to 1 */
export function renewalOf({ startsAt, expiresAt }: { startsAt: Date; expiresAt: Date }, luck: number): Date {
  const lifetimeMs = expiresAt.getTime() - startsAt.getTime();
  return new Date(startsAt.getTime() + lifetimeMs * (RENEW_AT + SPREAD * luck));
}

/**
 * @param failures in a row, 1 or more
 * @param wantedMs what the authority asked for
 */
export function pauseAfter(failures: number, wantedMs: number, luck: number): number {
  const ms = Math.min(RETRY_FIRST_MS * 2 ** Math.min(failures - 1, 20), RETRY_LONGEST_MS);
  return Math.max(ms * (1 + RETRY_JITTER * (2 * luck - 1)), wantedMs);
}

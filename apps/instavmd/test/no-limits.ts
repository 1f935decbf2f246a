/** For tests of routes over a store alone: nobody asks too often. */
import { QUOTA_NAMES } from '@instavm/wire';
import type { QuotaValues } from '../src/quota-book.ts';
import { RateLimits } from '../src/rate-limits.ts';

const PLENTY = Object.fromEntries(QUOTA_NAMES.map((name) => [name, 1e9])) as QuotaValues;

export const noLimits = (): RateLimits => new RateLimits({ valuesOf: async () => PLENTY });

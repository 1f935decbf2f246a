import { expect, it } from 'vitest';
import { ioMaxOf } from '../host/disk-limits.ts';
import { rateLimiterOf, UNLIMITED } from './machine.ts';

it('a limit of the disk is said to Firecracker for each disk, and to the kernel for both', () => {
  const limits = { bytesPerSecond: 1_000_000, operationsPerSecond: 100 };
  expect(rateLimiterOf(limits)).toEqual({
    bandwidth: { size: 1_000_000, refill_time: 1000 },
    ops: { size: 100, refill_time: 1000 },
  });
  expect(ioMaxOf(limits)).toBe('rbps=2000000 wbps=2000000 riops=200 wiops=200');
});

it('no limit takes away the one that a snapshot had', () => {
  expect(rateLimiterOf(UNLIMITED).bandwidth).toEqual({ size: 0, refill_time: 0 });
  expect(ioMaxOf({ ...UNLIMITED, operationsPerSecond: 7 })).toBe('rbps=max wbps=max riops=14 wiops=14');
});

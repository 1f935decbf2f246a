import { afterEach, beforeEach, expect, it, vi } from 'vitest';
import { ending } from './ending.ts';

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it('a microVM that does not end is told of, and ended later without anybody asking', async () => {
  const gone = vi.fn();
  let stuck = 2;
  const kill = vi.fn(async () => {
    if (stuck-- > 0) throw new Error('in the kernel');
  });
  const end = ending(kill, gone);
  await expect(Promise.all([end(), end()])).rejects.toThrow('in the kernel');
  expect(kill).toHaveBeenCalledTimes(1);
  await expect(end()).rejects.toThrow('in the kernel');
  await vi.advanceTimersByTimeAsync(60_000);
  expect([kill.mock.calls.length, gone.mock.calls.length]).toEqual([3, 1]);
  await vi.advanceTimersByTimeAsync(600_000);
  await end();
  expect([kill.mock.calls.length, gone.mock.calls.length]).toEqual([3, 1]);
});

import { mkdtemp, open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { VmmCounts } from '@instavm/core';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { CountLines, parseCounts, readCounts } from './counts.ts';
import { makeFifos } from './fifo.ts';

/** Of a Firecracker 1.12, without what nobody reads. */
const line = (seccomp: unknown = 0, read: unknown = 0) => ({
  utc_timestamp_ms: 1_790_000_000_000,
  api_server: { process_startup_time_us: 1, sync_response_fails: 0 },
  block_base: { read_bytes: 1, write_bytes: 0, rate_limiter_throttled_events: 0 },
  block: { activate_fails: 0, read_bytes: read, write_bytes: 2, rate_limiter_throttled_events: 3 },
  seccomp: { num_faults: seccomp },
  vcpu: { exit_io_in: 9, failures: 4, exit_io_in_agg: { min_us: 0, max_us: 1, sum_us: 1 } },
  vsock: { conns_added: 1, rx_bytes_count: 5, tx_bytes_count: 6 },
});
const text = (...of: Parameters<typeof line>): string => `${JSON.stringify(line(...of))}\n`;
const counts = (seccompFaults = 0, diskReadBytes = 0): VmmCounts => ({
  ...{ seccompFaults, diskReadBytes, diskWrittenBytes: 2, diskThrottled: 3, vcpuFailures: 4 },
  ...{ channelSentBytes: 5, channelReceivedBytes: 6 },
});
const told = (...pieces: Buffer[]): VmmCounts[] => {
  const all: VmmCounts[] = [];
  const lines = new CountLines((each) => all.push(each));
  for (const piece of pieces) lines.take(piece);
  return all;
};

describe('what Firecracker counts', () => {
  it('is what its line says, under names of ours', () => {
    expect(parseCounts(text(1, 7))).toEqual(counts(1, 7));
  });

  it.each([-1, 0.5, 2 ** 60, '1', null, {}])('is none with %j for a number', (number) => {
    expect(parseCounts(text(0, number))).toBeUndefined();
  });

  it.each(['', 'null', '[]', '{}', '{"seccomp":{"num_faults":1}}', '\0', text().slice(1)])('is none in %j', (said) => {
    expect(parseCounts(said)).toBeUndefined();
  });

  it('is the same however its lines are cut', () => {
    const whole = Buffer.from(text(0, 1) + text(0, 2) + text(0, 3));
    fc.assert(
      fc.property(fc.array(fc.nat(whole.length)), (cuts) => {
        const at = [0, ...cuts.sort((a, b) => a - b), whole.length];
        const pieces = at.slice(1).map((end, index) => whole.subarray(at[index], end));
        expect(told(...pieces)).toEqual([counts(0, 1), counts(0, 2), counts(0, 3)]);
      }),
    );
  });

  it('is lost with the line that is torn, or longer than one can be, and with no other', () => {
    const torn = Buffer.from(text().slice(0, 100) + text() + text(0, 8));
    expect(told(torn)).toEqual([counts(0, 8)]);
    const long = Array.from({ length: 100 }, () => Buffer.alloc(1000, ' '));
    expect(told(...long, Buffer.from(text(0, 8) + text(0, 9)))).toEqual([counts(0, 9)]);
  });

  it('is bounded, and no error, whatever is written', () => {
    const written = fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
      fc.json().map((json) => Buffer.from(`${json}\n`)),
      fc.tuple(fc.double(), fc.jsonValue()).map(([seccomp, read]) => Buffer.from(text(seccomp, read))),
    );
    fc.assert(
      fc.property(fc.array(written), (pieces) => {
        for (const number of told(...pieces).flatMap((each) => Object.values(each))) {
          expect(Number.isInteger(number)).toBe(true);
          expect(number).toBeGreaterThanOrEqual(0);
          expect(number).toBeLessThanOrEqual(2 ** 42);
        }
      }),
    );
  });

  it('comes through a FIFO', async () => {
    const directory = await mkdtemp(join(tmpdir(), 'instavm-counts-'));
    const path = join(directory, 'counts');
    expect(readCounts(path, () => {})).toBeUndefined();
    await makeFifos(path);
    const all: VmmCounts[] = [];
    const reader = readCounts(path, (each) => all.push(each));
    const firecracker = await open(path, 'a');
    await firecracker.write(text(1));
    await expect.poll(() => all).toEqual([counts(1)]);
    await firecracker.write(text(2));
    reader?.drain();
    expect(all).toEqual([counts(1), counts(2)]);
    await firecracker.close();
    reader?.close();
    await rm(directory, { recursive: true });
  });
});

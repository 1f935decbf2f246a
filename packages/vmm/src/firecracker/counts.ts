/**
 * What a Firecracker counts: a line of JSON in its other FIFO, every 60 s, when it is asked (`FlushMetrics`), and when it ends by itself, as for a
 * system call that its seccomp filter does not allow. Numbers are those since the line before (docs/metrics.md of Firecracker). A line is not
 * believed to be one: it may be torn, and who writes it may be a guest that has taken Firecracker over.
 */
import type { VmmCounts } from '@instavm/core';
import { z } from 'zod';
import { parseJson } from '../host/parse-json.ts';
import { FifoReader } from './fifo.ts';

/** A line has some 10 KiB. */
const MAX_LINE_BYTES = 64 * 1024;
/** More than any disk or channel carries in the minute of a line: what one that lies can add to a sum. */
const MAX_COUNT = 2 ** 42;

const Count = z.number().int().min(0).max(MAX_COUNT);
/** Those parts of a line that somebody reads; as of 1.12, and later versions keep them. */
const Line = z.object({
  seccomp: z.object({ num_faults: Count }),
  vcpu: z.object({ failures: Count }),
  /** All disks together. */
  block: z.object({ read_bytes: Count, write_bytes: Count, rate_limiter_throttled_events: Count }),
  /** Named as the guest sees it: it receives what the host sends. */
  vsock: z.object({ rx_bytes_count: Count, tx_bytes_count: Count }),
});

/** @returns undefined when it is no line of Firecracker's */
export function parseCounts(text: string): VmmCounts | undefined {
  const line = parseJson(Line, text);
  return (
    line && {
      seccompFaults: line.seccomp.num_faults,
      vcpuFailures: line.vcpu.failures,
      diskReadBytes: line.block.read_bytes,
      diskWrittenBytes: line.block.write_bytes,
      diskThrottled: line.block.rate_limiter_throttled_events,
      channelReceivedBytes: line.vsock.tx_bytes_count,
      channelSentBytes: line.vsock.rx_bytes_count,
    }
  );
}

/** Puts lines together from pieces; of one that is too long, nothing is kept. */
export class CountLines {
  readonly #told: (counts: VmmCounts) => void;
  #begun: Buffer = Buffer.alloc(0);
  #isTooLong = false;

  constructor(told: (counts: VmmCounts) => void) {
    this.#told = told;
  }

  take(piece: Buffer): void {
    let from = 0;
    for (let end = piece.indexOf('\n'); end >= 0; end = piece.indexOf('\n', from)) {
      this.#add(piece.subarray(from, end));
      const counts = this.#isTooLong ? undefined : parseCounts(this.#begun.toString('utf8'));
      this.#begun = Buffer.alloc(0);
      this.#isTooLong = false;
      if (counts !== undefined) this.#told(counts);
      from = end + 1;
    }
    this.#add(piece.subarray(from));
  }

  #add(part: Buffer): void {
    this.#isTooLong ||= this.#begun.length + part.length > MAX_LINE_BYTES;
    this.#begun = this.#isTooLong ? Buffer.alloc(0) : Buffer.concat([this.#begun, part]);
  }
}

/** @returns undefined where there is no FIFO, as in a jail that an older daemon made */
export function readCounts(path: string, told: (counts: VmmCounts) => void): FifoReader | undefined {
  const lines = new CountLines(told);
  return FifoReader.open(path, (piece) => lines.take(piece));
}

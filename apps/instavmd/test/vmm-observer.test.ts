import type { VmmCounts } from '@instavm/core';
import { describe, expect, it } from 'vitest';
import { Metrics } from '../src/operations/metrics.ts';
import { vmmObserver } from '../src/operations/vmm-observer.ts';

const COUNTS: VmmCounts = {
  ...{ seccompFaults: 0, vcpuFailures: 1, diskThrottled: 2, diskReadBytes: 3, diskWrittenBytes: 4 },
  ...{ channelReceivedBytes: 5, channelSentBytes: 6 },
};

describe('what VMMs count', () => {
  it('is summed up without their names; a system call that is not allowed is warned of once, with the name', async () => {
    const metrics = new Metrics();
    const warned: object[] = [];
    const observe = vmmObserver(metrics, { warn: (fields: object) => warned.push(fields) } as never);
    observe('vm-quiet', COUNTS);
    expect(warned).toEqual([]);
    for (const seccompFaults of [1, 1]) observe('vm-loud', { ...COUNTS, seccompFaults });
    expect(warned).toEqual([{ vmm: 'vm-loud', seccompFaults: 1 }]);
    const text = await metrics.text();
    for (const sample of [
      'seccomp_faults_total 2',
      'vcpu_failures_total 3',
      'disk_throttled_total 6',
      'disk_bytes_total{direction="read"} 9',
      'disk_bytes_total{direction="written"} 12',
      'channel_bytes_total{direction="received"} 15',
      'channel_bytes_total{direction="sent"} 18',
    ])
      expect(text).toContain(`\ninstavm_vmm_${sample}\n`);
    expect(text).not.toMatch(/vm-(quiet|loud)/);
  });
});

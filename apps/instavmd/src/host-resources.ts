/** Core's view of the host: free memory and disk, read when asked. */
import { readFileSync, statfsSync } from 'node:fs';
import type { HostResources } from '@instavm/core';

const MIB = 1024 * 1024;

/** @param directory on the disk that snapshots and overlays take */
export const hostResources = (directory: string): HostResources => ({
  // proc_meminfo(5): what can be had without swapping.
  availableMemoryMib: () =>
    Number(/^MemAvailable:\s+(\d+) kB$/m.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1]) / 1024,
  freeDiskMib: () => {
    const { bavail, bsize } = statfsSync(directory);
    return (bavail * bsize) / MIB;
  },
});

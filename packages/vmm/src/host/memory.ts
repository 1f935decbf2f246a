/** Whether the host has memory for another microVM. */
import { readFile } from 'node:fs/promises';
import { InstaVMError } from '@instavm/wire';

/** A clone touches 70 to 140 MiB of its own; below this much free memory the host is full. */
const MEMORY_FLOOR_KIB = 384 * 1024;

/** @throws capacity_unavailable */
export async function checkMemory(): Promise<void> {
  const meminfo = await readFile('/proc/meminfo', 'utf8');
  const availableKib = Number(/^MemAvailable:\s+(\d+) kB$/m.exec(meminfo)?.[1] ?? 0);
  if (availableKib < MEMORY_FLOOR_KIB) {
    throw new InstaVMError('capacity_unavailable', 'the host has too little free memory for another microVM', {
      details: { availableMib: Math.floor(availableKib / 1024) },
    });
  }
}

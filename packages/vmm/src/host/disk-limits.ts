/** How much a microVM may read from its disks and write to them. */

/** Of each disk of a microVM; Infinity: no limit. */
export type DiskLimits = { readonly bytesPerSecond: number; readonly operationsPerSecond: number };

/** Base and overlay. */
const DISKS = 2;

/** The same for a cgroup's `io.max`, all disks of the microVM together: for a VMM that would not keep to its own. */
export function ioMaxOf({ bytesPerSecond, operationsPerSecond }: DiskLimits): string {
  const ofAll = (perSecond: number): string =>
    Number.isFinite(perSecond) ? String(Math.ceil(perSecond * DISKS)) : 'max';
  const [bytes, operations] = [ofAll(bytesPerSecond), ofAll(operationsPerSecond)];
  return `rbps=${bytes} wbps=${bytes} riops=${operations} wiops=${operations}`;
}

export const UNLIMITED: DiskLimits = { bytesPerSecond: Infinity, operationsPerSecond: Infinity };

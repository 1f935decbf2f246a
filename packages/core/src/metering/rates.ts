/** What use costs: integer micro-dollars, computed so that pieces of one run add up to the whole, whatever they were cut into. Pure. */
import type { MachineSize } from '../vmm.ts';

/** Micro-dollars, whole ones. */
export type Rates = {
  /** Of one vCPU, used or not, while its microVM runs. */
  readonly perVcpuHour: number;
  readonly perGibHour: number;
  /** Of saved state on the disk of the host. */
  readonly perStoredGibHour: number;
  /** Of bytes that left a sandbox through the gateway. */
  readonly perEgressGib: number;
};

export const HOUR_MS = 3_600_000;
const MIB_PER_GIB = 1_024;
const BYTES_PER_GIB = 1_024 ** 3;

/** What a machine costs that has run for so long. */
export function runCost(rates: Rates, { vcpus, memoryMib }: MachineSize, ms: number): number {
  // In 1024ths of a micro-dollar an hour; BigInt, for months of a large machine are more than a double holds exactly.
  const perHour = BigInt(vcpus * rates.perVcpuHour * MIB_PER_GIB + memoryMib * rates.perGibHour);
  return Number((perHour * BigInt(Math.max(0, Math.round(ms)))) / BigInt(HOUR_MS * MIB_PER_GIB));
}

/** @param mibMs mebibytes, times the milliseconds that they were kept */
export const storageCost = (rates: Rates, mibMs: number): number =>
  Number((BigInt(Math.round(mibMs)) * BigInt(rates.perStoredGibHour)) / BigInt(HOUR_MS * MIB_PER_GIB));

export const egressCost = (rates: Rates, bytes: number): number =>
  Number((BigInt(bytes) * BigInt(rates.perEgressGib)) / BigInt(BYTES_PER_GIB));

/** The begin of the hour (UTC) that an instant is in. */
export const hourOf = (at: Date): Date => new Date(Math.floor(at.getTime() / HOUR_MS) * HOUR_MS);
export const nextHour = (at: Date): Date => new Date(hourOf(at).getTime() + HOUR_MS);

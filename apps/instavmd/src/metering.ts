/** Rates and quotas as the configuration has them, and the clock of the meter. */
import type { Credit, Meter, Rates, SandboxService } from '@instavm/core';
import type { Audit } from './audit.ts';
import type { Config } from './config.ts';
import type { Guest } from './guest/guest.ts';
import type { QuotaValues } from './quota-book.ts';

export const quotasIn = (config: Config): QuotaValues => ({
  sandboxes: config.INSTAVM_MAX_SANDBOXES,
  vcpus: config.INSTAVM_MAX_VCPUS,
  memory_mib: config.INSTAVM_MAX_MEMORY_MB,
  snapshots: config.INSTAVM_MAX_SNAPSHOTS,
  stored_mib: config.INSTAVM_MAX_STORAGE_MB,
  creates_per_minute: config.INSTAVM_CREATES_PER_MINUTE,
  requests_per_minute: config.INSTAVM_REQUESTS_PER_MINUTE,
});

export const ratesOf = (config: Config): Rates => ({
  perVcpuHour: config.INSTAVM_RATE_VCPU_HOUR,
  perGibHour: config.INSTAVM_RATE_MEMORY_GIB_HOUR,
  perStoredGibHour: config.INSTAVM_RATE_STORAGE_GIB_HOUR,
  perEgressGib: config.INSTAVM_RATE_EGRESS_GIB,
});

export type Metering = {
  readonly meter: Meter;
  readonly credit: Credit;
  readonly sandboxes: SandboxService<Guest>;
  readonly audit: Audit;
};

/** @returns how to stop */
export function metering({ meter, credit, sandboxes, audit }: Metering, everyMs: number): () => void {
  const tick = async (): Promise<void> => {
    await meter.tick();
    await credit.enforce(async (accountId, reason) => {
      audit.creditExhausted(accountId);
      await sandboxes.suspendAll(accountId, reason);
    });
  };
  const timer = setInterval(() => void tick(), everyMs);
  return () => clearInterval(timer);
}

/** What VMMs count, for Prometheus, and for the log what nobody may overlook: a system call that is not allowed is what an attempt to leave a VMM looks like. */
import type { VmmObserver } from '@instavm/core';
import type { Logger } from 'pino';
import type { Metrics } from './metrics.ts';

export function vmmObserver(metrics: Pick<Metrics, 'vmm'>, logger: Pick<Logger, 'warn'>): VmmObserver {
  /** One that has been taken over may say it for ever. */
  const warnedOf = new Set<string>();
  return (vmm, counts) => {
    metrics.vmm(counts);
    const { seccompFaults } = counts;
    if (seccompFaults === 0 || warnedOf.has(vmm)) return;
    warnedOf.add(vmm);
    logger.warn({ vmm, seccompFaults }, 'Firecracker made a system call that its seccomp filter does not allow');
  };
}

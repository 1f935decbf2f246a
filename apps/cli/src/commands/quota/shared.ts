/** How quotas are shown and named. */
import type { AccountQuotas, QuotaLimits } from 'instavm';
import { printJson, table } from '../../output.ts';

export const QUOTAS_JSON =
  '{ accountId, limits: { sandboxes, vcpus, memoryMib, snapshots, storedMib, createsPerMinute, requestsPerMinute }, used: { sandboxes, vcpus, memoryMib, snapshots, storedMib } }';

/** As they are typed, and what they limit. */
export const QUOTAS: Readonly<Record<string, readonly [name: keyof QuotaLimits, sentence: string]>> = {
  sandboxes: ['sandboxes', 'that run at once'],
  vcpus: ['vcpus', 'of what runs'],
  memory: ['memoryMib', 'MiB, of what runs'],
  snapshots: ['snapshots', 'that are kept'],
  stored: ['storedMib', 'MiB, by snapshots and suspended sandboxes'],
  creates: ['createsPerMinute', 'sandboxes made in a minute'],
  requests: ['requestsPerMinute', 'requests in a minute'],
};

export function printQuotas(quotas: AccountQuotas, json: boolean | undefined): void {
  if (json) {
    printJson(quotas);
    return;
  }
  const used: Partial<QuotaLimits> = quotas.used;
  const rows = Object.entries(QUOTAS).map(([typed, [name, sentence]]) => [
    ...[typed, String(used[name] ?? ''), String(quotas.limits[name]), sentence],
  ]);
  console.log(table(['QUOTA', 'USED', 'LIMIT', 'OF WHAT'], rows, { cut: ['OF WHAT'] }));
}

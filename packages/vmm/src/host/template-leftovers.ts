/** What killed work on templates leaves in a cache directory, which several daemons may share: only what no living process works on is removed. */
import { join } from 'node:path';
import { removeAbandonedDirectories } from './owned-directories.ts';

/** Prefixes of directories under way: templates being made, and being removed, below `templates`; the others in the cache directory itself. */
export const PARTIAL_TEMPLATE = '.partial';
export const REMOVED_TEMPLATES = '.removed';
export const KVM_PROBE = '.kvm-probe';
export const UNPACKED_TEMPLATES = '.restore';
/** As it was named before it said whose it is. */
const OLD_KVM_PROBE = 'kvm-probe';

/** @returns how many */
export async function removeTemplateLeftovers(cacheDirectory: string): Promise<number> {
  let removed = 0;
  for (const prefix of [PARTIAL_TEMPLATE, REMOVED_TEMPLATES])
    removed += await removeAbandonedDirectories(join(cacheDirectory, 'templates'), prefix);
  for (const prefix of [KVM_PROBE, OLD_KVM_PROBE, UNPACKED_TEMPLATES])
    removed += await removeAbandonedDirectories(cacheDirectory, prefix);
  return removed;
}

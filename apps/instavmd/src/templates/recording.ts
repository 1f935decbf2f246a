/** A backend whose templates are recorded as used before they are, and built with what killed builds left out of the way. */
import type { Vmm } from '@instavm/core';
import { restingOnTemplates, type StatePlaces } from '@instavm/vmm/template-files';
import type { TemplateUses } from './uses.ts';

export function recordingUses(vmm: Vmm, uses: TemplateUses, removeLeftovers: () => Promise<void>): Vmm {
  return {
    ...vmm,
    findTemplate: async (key) => {
      await uses.hold(key);
      return vmm.findTemplate(key);
    },
    buildTemplate: async (images, size, progress) => {
      await removeLeftovers();
      await uses.hold(vmm.templateKey(images, size));
      return vmm.buildTemplate(images, size, progress);
    },
    restore: async (source, incarnationId) => {
      await uses.hold('key' in source ? source.key : source.templateKey);
      return vmm.restore(source, incarnationId);
    },
  };
}

/** For saved states and microVMs that were there before: an earlier version's, or a backup's. */
export async function holdAllOf(places: StatePlaces, uses: TemplateUses): Promise<void> {
  for (const key of (await restingOnTemplates(places)).keys()) await uses.hold(key);
}

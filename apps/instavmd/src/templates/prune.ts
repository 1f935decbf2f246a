/** Takes away the templates that nothing needs: what is needed is found out, and the rest gets out of the way, before any daemon can record another use. */
import { rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { makeOwnedDirectory, REMOVED_TEMPLATES, removeTemplateLeftovers } from '@instavm/vmm/host-files';
import { type ListedTemplate, type Survey, surveyTemplates } from './needs.ts';
import { usesDirectory, withTemplatesLocked } from './uses.ts';

export type PruneOptions = {
  /** Says what would be removed, and removes nothing. */
  readonly dryRun: boolean;
  /** Removes those too of which no use was recorded: they are as likely an earlier version's. */
  readonly unrecorded: boolean;
};

export type Pruned = {
  readonly removed: readonly ListedTemplate[];
  readonly kept: readonly ListedTemplate[];
  readonly vanished: readonly string[];
};

export async function pruneTemplates(
  cacheDirectory: string,
  dataDirectory: string,
  { dryRun, unrecorded }: PruneOptions,
): Promise<Pruned> {
  const isDoomed = ({ neededBy, lastUsedAt }: ListedTemplate): boolean =>
    neededBy.length === 0 && (lastUsedAt !== null || unrecorded);
  const sorted = ({ templates, vanished }: Survey): Pruned => ({
    removed: templates.filter(isDoomed),
    kept: templates.filter((template) => !isDoomed(template)),
    vanished,
  });
  if (dryRun) return sorted(await surveyTemplates(cacheDirectory, dataDirectory));
  await removeTemplateLeftovers(cacheDirectory);
  const grave = await makeOwnedDirectory(join(cacheDirectory, 'templates'), REMOVED_TEMPLATES);
  try {
    return await withTemplatesLocked(cacheDirectory, async () => {
      const survey = await surveyTemplates(cacheDirectory, dataDirectory);
      const pruned = sorted(survey);
      for (const { key, directory } of pruned.removed) await rename(directory, join(grave, key));
      await forgetUses(cacheDirectory, survey, pruned);
      return pruned;
    });
  } finally {
    await rm(grave, { recursive: true, force: true });
  }
}

/** By data directories that are gone. Those that are there stay recorded, so that they are looked into the next time too. */
async function forgetUses(cacheDirectory: string, { uses }: Survey, { kept, vanished }: Pruned): Promise<void> {
  for (const [key, recorded] of uses) {
    const over = recorded.filter((use) => !use.daemonRuns && vanished.includes(use.dataDirectory));
    for (const { path } of over) await rm(path, { force: true });
    if (over.length === recorded.length && !kept.some((template) => template.key === key))
      await rm(join(usesDirectory(cacheDirectory), key), { recursive: true, force: true });
  }
}

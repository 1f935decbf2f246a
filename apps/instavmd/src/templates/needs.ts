/** Which templates of a cache directory are needed, and by what: asked before any is taken away, so what cannot be looked at counts as a need. */
import { lstat } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { listTemplates, type RestsOnTemplate, restingOnTemplates } from '@instavm/vmm/template-files';
import { dataPaths } from '../data-directory.ts';
import { type RecordedUse, recordedUses } from './uses.ts';

export type Need = RestsOnTemplate & {
  readonly dataDirectory: string;
  /** A running daemon has taken it up, and may restore it at any time. */
  readonly daemonRuns: boolean;
  /** Why nobody can tell what is in the data directory. */
  readonly unreadable?: string;
};

export type ListedTemplate = {
  readonly key: string;
  readonly directory: string;
  readonly sizeBytes: number;
  readonly backend: string | null;
  readonly accelerator: string | null;
  /** VMM, release, and the processor where that matters. */
  readonly madeBy: string | null;
  readonly memoryMib: number | null;
  readonly vcpus: number | null;
  /** The last time that a daemon had it; null when none has recorded its use, as those of earlier versions did not. */
  readonly lastUsedAt: string | null;
  readonly neededBy: readonly Need[];
};

export type Survey = {
  readonly templates: readonly ListedTemplate[];
  /** By key, of templates that are not there any more as well. */
  readonly uses: ReadonlyMap<string, readonly RecordedUse[]>;
  /** Data directories that are recorded and not there: they need nothing. */
  readonly vanished: readonly string[];
};

/** @param dataDirectory looked at also when nothing recorded it */
export async function surveyTemplates(cacheDirectory: string, dataDirectory: string): Promise<Survey> {
  const uses = await recordedUses(cacheDirectory);
  const recorded = [...uses.values()].flat().map((use) => use.dataDirectory);
  const known = await Promise.all([...new Set([resolve(dataDirectory), ...recorded])].map(lookInto));
  const templates = (await listTemplates(cacheDirectory)).map(({ key, sizeBytes, made }): ListedTemplate => {
    const own = uses.get(key);
    const last = Math.max(...(own ?? []).map((use) => use.lastUsedAt.getTime()));
    return {
      ...{ key, directory: join(resolve(cacheDirectory), 'templates', key), sizeBytes },
      ...{ backend: made?.backend ?? null, accelerator: made?.accelerator ?? null, madeBy: made?.madeBy ?? null },
      ...{ memoryMib: made?.memoryMib ?? null, vcpus: made?.vcpus ?? null },
      lastUsedAt: Number.isFinite(last) ? new Date(last).toISOString() : null,
      neededBy: known.flatMap((looked) => needOf(key, looked, own ?? [])),
    };
  });
  const vanished = known.filter((looked) => looked.isGone && recorded.includes(looked.dataDirectory));
  return { templates, uses, vanished: vanished.map((looked) => looked.dataDirectory) };
}

type LookedInto = {
  readonly dataDirectory: string;
  readonly isGone: boolean;
  readonly resting: ReadonlyMap<string, RestsOnTemplate>;
  readonly unreadable?: string;
};

async function lookInto(dataDirectory: string): Promise<LookedInto> {
  const nothing = { dataDirectory, isGone: false, resting: new Map() };
  try {
    await lstat(dataDirectory);
    return { ...nothing, resting: await restingOnTemplates(dataPaths(dataDirectory)) };
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === 'ENOENT' ? { ...nothing, isGone: true } : { ...nothing, unreadable: message };
  }
}

function needOf(key: string, looked: LookedInto, uses: readonly RecordedUse[]): Need[] {
  const { dataDirectory, unreadable } = looked;
  const use = uses.find((each) => each.dataDirectory === dataDirectory);
  const { savedStates = [], microVms = [] } = looked.resting.get(key) ?? {};
  const daemonRuns = use?.daemonRuns ?? false;
  const mayRest = unreadable !== undefined && use !== undefined;
  if (!daemonRuns && !mayRest && savedStates.length + microVms.length === 0) return [];
  return [{ dataDirectory, daemonRuns, savedStates, microVms, ...(unreadable === undefined ? {} : { unreadable }) }];
}

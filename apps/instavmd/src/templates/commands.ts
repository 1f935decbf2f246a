/** `instavmd templates` and `instavmd templates prune`, as people and programs read them. */
import type { Config } from '../config.ts';
import { type ListedTemplate, type Need, surveyTemplates } from './needs.ts';
import { type PruneOptions, pruneTemplates } from './prune.ts';

const MIB = 1024 * 1024;
/** Where prune would keep it. */
const UNRECORDED = 'no daemon has recorded a use: an earlier version’s, perhaps (prune --unrecorded)';

type Directories = Pick<Config, 'INSTAVM_CACHE_DIR' | 'INSTAVM_DATA_DIR'>;

/** @returns what to print */
export async function listTemplatesCommand(config: Directories, { json }: { readonly json: boolean }): Promise<string> {
  const { templates, vanished } = await surveyTemplates(config.INSTAVM_CACHE_DIR, config.INSTAVM_DATA_DIR);
  if (json) return JSON.stringify({ templates, vanishedDataDirectories: vanished });
  if (templates.length === 0) return `no templates in ${config.INSTAVM_CACHE_DIR}`;
  return [...templates.map(told), `${counted(templates)}`, ...gone(vanished)].join('\n');
}

/** @returns what to print */
export async function pruneTemplatesCommand(
  config: Directories,
  { json, ...options }: PruneOptions & { readonly json: boolean },
): Promise<string> {
  const { removed, kept, vanished } = await pruneTemplates(config.INSTAVM_CACHE_DIR, config.INSTAVM_DATA_DIR, options);
  if (json) return JSON.stringify({ dryRun: options.dryRun, removed, kept, vanishedDataDirectories: vanished });
  const did = options.dryRun ? 'would remove' : 'removed';
  const unrecorded = kept.filter((template) => template.neededBy.length === 0);
  const left = unrecorded.length === 0 ? [] : [`${counted(unrecorded)} kept: ${UNRECORDED}`];
  return [
    ...removed.map((template) => `${did} ${template.key}  ${mib(template.sizeBytes)}`),
    `${did} ${counted(removed)}; ${counted(kept)} stay`,
    ...left,
    ...gone(vanished),
  ].join('\n');
}

function told(template: ListedTemplate): string {
  const { key, sizeBytes, backend, accelerator, madeBy, memoryMib, vcpus, lastUsedAt, neededBy } = template;
  const machine = backend === null ? 'damaged' : `${memoryMib} MiB, ${vcpus} vCPU  ${backend} (${accelerator})`;
  const used = lastUsedAt === null ? 'never recorded' : lastUsedAt.slice(0, 16).replace('T', ' ');
  const needs = neededBy.length > 0 ? neededBy.map(needed) : [lastUsedAt === null ? UNRECORDED : 'not needed'];
  const lines = [...(madeBy === null ? [] : [madeBy]), `last used: ${used}`, ...needs];
  return [`${key}  ${mib(sizeBytes)}  ${machine}`, ...lines.map((line) => `    ${line}`)].join('\n');
}

function needed({ dataDirectory, daemonRuns, savedStates, microVms, unreadable }: Need): string {
  const parts = [
    ...(daemonRuns ? ['a running daemon'] : []),
    ...(savedStates.length > 0 ? [`saved states ${savedStates.join(', ')}`] : []),
    ...(microVms.length > 0 ? [`microVMs ${microVms.join(', ')}`] : []),
    ...(unreadable === undefined ? [] : [`nobody knows: ${unreadable}`]),
  ];
  return `needed by ${dataDirectory}: ${parts.join('; ')}`;
}

const gone = (vanished: readonly string[]): string[] =>
  vanished.map((path) => `${path} is not there any more, and needs nothing`);

const counted = (templates: readonly ListedTemplate[]): string =>
  `${templates.length} template${templates.length === 1 ? '' : 's'} (${mib(templates.reduce((sum, each) => sum + each.sizeBytes, 0))})`;

const mib = (bytes: number): string => `${Math.round(bytes / MIB)} MiB`;

/**
 * Templates as files, for whoever carries them to another host or takes them away: which ones there are, which ones saved states and microVMs
 * rest on, and which images they name. The rest of their manifests is the business of the backend that made them.
 */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve, sep } from 'node:path';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { parseJson } from './parse-json.ts';
import { KeyText, readBuildId, TEMPLATE_MANIFEST } from './template-build.ts';

const TEMPLATES = 'templates';
const NamesTemplate = z.object({ templateKey: KeyText });
/** Of a saved state, and of a microVM, whichever backend made it. */
const SNAPSHOT = 'snapshot.json';
const VMM_RECORD = 'vmm.json';
const Template = z.looseObject({ images: z.record(z.string(), z.string()).optional() });
/** QEMU's manifests name no backend, Firecracker's no accelerator. */
const Made = z.object({
  backend: z.string().default('qemu'),
  accelerator: z.string().default('kvm'),
  madeBy: z.string().optional(),
  memoryMib: z.number(),
  vcpus: z.number(),
});
/** Unit of `st_blocks`, whatever the file system's own block size. */
const STAT_BLOCK_BYTES = 512;

export type TemplateOnDisk = {
  readonly key: string;
  /** What it occupies. */
  readonly sizeBytes: number;
  /** By which VMM, of which release, on which processor where that matters; undefined when it is damaged. */
  readonly made: z.infer<typeof Made> | undefined;
};

/** Every finished template of a cache directory, damaged ones included. */
export async function listTemplates(cacheDirectory: string): Promise<TemplateOnDisk[]> {
  const root = join(cacheDirectory, TEMPLATES);
  const found: TemplateOnDisk[] = [];
  for (const key of await readdir(root).catch(() => [])) {
    if (!KeyText.safeParse(key).success) continue;
    const made = parseJson(Made, await textOf(join(root, key, TEMPLATE_MANIFEST)));
    found.push({ key, sizeBytes: await occupied(join(root, key)), made });
  }
  return found;
}

export type StatePlaces = {
  readonly snapshotsDirectory: string;
  readonly runDirectory: string;
  readonly jailsDirectory: string;
};
export type RestsOnTemplate = { readonly savedStates: string[]; readonly microVms: string[] };

/**
 * What in a data directory rests on which template, by key. A microVM whose process has ended counts for as long as its directory is there.
 * @throws what kept a directory from being read, unless it is not there
 */
export async function restingOnTemplates(places: StatePlaces): Promise<Map<string, RestsOnTemplate>> {
  const found = new Map<string, RestsOnTemplate>();
  const add = async (kind: keyof RestsOnTemplate, directory: string, manifest: string): Promise<void> => {
    const key = parseJson(NamesTemplate, await textOf(join(directory, manifest)))?.templateKey;
    if (key === undefined) return;
    const resting = found.get(key) ?? { savedStates: [], microVms: [] };
    resting[kind].push(basename(directory));
    found.set(key, resting);
  };
  for (const directory of await directoriesIn(places.snapshotsDirectory)) await add('savedStates', directory, SNAPSHOT);
  const jails = await Promise.all((await directoriesIn(places.jailsDirectory)).map(directoriesIn));
  for (const directory of [...(await directoriesIn(places.runDirectory)), ...jails.flat()])
    await add('microVms', directory, VMM_RECORD);
  return found;
}

async function directoriesIn(parent: string): Promise<string[]> {
  const entries = await readdir(parent, { withFileTypes: true }).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  return entries.filter((entry) => entry.isDirectory()).map((entry) => join(parent, entry.name));
}

async function occupied(directory: string): Promise<number> {
  const sizes = (await readdir(directory)).map(async (name) => (await stat(join(directory, name))).blocks);
  return (await Promise.all(sizes)).reduce((sum, blocks) => sum + blocks * STAT_BLOCK_BYTES, 0);
}

/**
 * @param savedStates directories of them
 * @returns directories below the cache directory, relative to it, that they cannot be restored without
 */
export async function locateTemplates(cacheDirectory: string, savedStates: readonly string[]): Promise<string[]> {
  const root = resolve(cacheDirectory);
  const found = new Set<string>();
  for (const directory of savedStates) {
    const key = parseJson(NamesTemplate, await textOf(join(directory, SNAPSHOT)))?.templateKey;
    const template = key === undefined ? undefined : await manifestOf(join(root, TEMPLATES, key));
    if (key === undefined || template === undefined) continue;
    found.add(join(TEMPLATES, key));
    for (const path of Object.values(template.images ?? {})) {
      const image = relative(root, dirname(path));
      if (!image.startsWith('..') && (await stat(path).catch(() => undefined)) !== undefined) found.add(image);
    }
  }
  return [...found];
}

/**
 * Makes templates that were unpacked below `directory` those of another cache directory.
 * @throws conflict when that has another template of the same key: memory that was saved beside one means nothing beside the other
 */
export async function relocateTemplates(
  directory: string,
  { from, to }: { readonly from: string; readonly to: string },
): Promise<void> {
  for (const key of await readdir(join(directory, TEMPLATES)).catch(() => [])) {
    const own = join(directory, TEMPLATES, key);
    const template = await manifestOf(own);
    if (template === undefined) continue;
    const present = await readBuildId(join(to, TEMPLATES, key));
    if (present !== undefined && present !== (await readBuildId(own)))
      throw new InstaVMError('conflict', `${to} has another template ${key} than the one that saved states rest on`, {
        hint: 'Restore with INSTAVM_CACHE_DIR set to a directory that is not there yet.',
      });
    if (template.images === undefined || from === to) continue;
    const images = Object.entries(template.images).map(([name, path]) => {
      const inside = relative(from, path);
      return [name, inside.startsWith(`..${sep}`) ? path : join(to, inside)];
    });
    const moved = { ...template, images: Object.fromEntries(images) };
    await writeFile(join(own, TEMPLATE_MANIFEST), `${JSON.stringify(moved, null, 2)}\n`, { flush: true });
  }
}

const manifestOf = async (template: string) => parseJson(Template, await textOf(join(template, TEMPLATE_MANIFEST)));
const textOf = (path: string): Promise<string> => readFile(path, 'utf8').catch(() => '');

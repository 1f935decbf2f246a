/**
 * Templates as files, for whoever carries them to another host: which ones saved states rest on, with the images that they name. The rest of
 * their manifests is the business of the backend that made them.
 */
import { readdir, readFile, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative, resolve, sep } from 'node:path';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { parseJson } from './parse-json.ts';
import { KeyText, readBuildId, TEMPLATE_MANIFEST } from './template-build.ts';

const TEMPLATES = 'templates';
const Snapshot = z.object({ templateKey: KeyText });
const Template = z.looseObject({ images: z.record(z.string(), z.string()).optional() });

/**
 * @param savedStates directories of them
 * @returns directories below the cache directory, relative to it, that they cannot be restored without
 */
export async function locateTemplates(cacheDirectory: string, savedStates: readonly string[]): Promise<string[]> {
  const root = resolve(cacheDirectory);
  const found = new Set<string>();
  for (const directory of savedStates) {
    const key = parseJson(Snapshot, await textOf(join(directory, 'snapshot.json')))?.templateKey;
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

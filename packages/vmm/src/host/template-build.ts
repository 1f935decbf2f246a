/**
 * Buildings of templates. A template that is made again under its key has other memory, and what was saved beside the first building means
 * nothing beside the second; so every saved state names its building, and an intact template is never replaced.
 */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Template, TemplateKey, VmSnapshot } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { z } from 'zod';
import { flush, renameUnlessTaken } from './files.ts';
import { makeOwnedDirectory } from './owned-directories.ts';
import { parseJson } from './parse-json.ts';
import { PARTIAL_TEMPLATE } from './template-leftovers.ts';

/** Of every template of every backend. */
export const TEMPLATE_MANIFEST = 'template.json';

/** Keys are hexadecimal: no manifest of a saved state leads out of the directory of templates. */
export const KeyText = z.string().regex(/^[0-9a-f]{16,64}$/);

/** Two boots never end in one device state: it holds the clocks to the nanosecond. */
const Building = z.object({ stateSha256Hex: z.string() });

/** @returns undefined when no template is there */
export async function readBuildId(templateDirectory: string): Promise<string | undefined> {
  const text = await readFile(join(templateDirectory, TEMPLATE_MANIFEST), 'utf8').catch(() => '');
  return parseJson(Building, text)?.stateSha256Hex;
}

/**
 * For a snapshot that is being made, which leaves out what the template has.
 * @param expected the building that it was begun with
 * @throws snapshot_failed when the template is not there, or is another than expected
 */
export async function requireBuildId(templateDirectory: string, expected?: string): Promise<string> {
  const found = await readBuildId(templateDirectory);
  if (found !== undefined && found === (expected ?? found)) return found;
  const [why, hint] =
    found === undefined
      ? ['is not on this host any more', 'Put its directory back (templates, in INSTAVM_CACHE_DIR), and try again.']
      : ['was made again meanwhile', 'Try again.'];
  throw new InstaVMError('snapshot_failed', `the template that the microVM was made from ${why}`, { hint });
}

/** @throws snapshot_incompatible */
export function checkBuilding(snapshot: VmSnapshot, template: Template): void {
  const { backend, accelerator, templateKey, templateBuildId } = snapshot;
  if (templateBuildId === template.buildId) return;
  const why =
    templateBuildId === undefined
      ? `the snapshot does not say over which building of its template (${templateKey}) it was made`
      : `the snapshot was made over another building of its template (${templateKey}) than the one on this host`;
  throw new InstaVMError('snapshot_incompatible', why, {
    details: { backend, accelerator, templateBuildId: templateBuildId ?? null, buildId: template.buildId },
    hint: 'Nothing is lost while you have that building, in a backup or another cache directory: start the daemon with it (INSTAVM_CACHE_DIR). Or delete what was saved.',
  });
}

export type TemplatePlace<Found> = {
  readonly templatesDirectory: string;
  readonly key: TemplateKey;
  /** @returns undefined for what is not complete and intact */
  find(templatesDirectory: string, key: TemplateKey): Promise<Found | undefined>;
};

/** What a build leaves in its directory beside the manifest. */
export type Made = { readonly manifest: { readonly stateSha256Hex: string }; readonly files: readonly string[] };

/**
 * Makes a template beside the finished ones, and gives it its name when it is whole.
 * @param make fills an empty directory
 * @returns the template under that name: another daemon's where that was faster, which microVMs may rest on by now
 * @throws boot_failed, and as `make`; nothing is left then
 */
export async function makeTemplate<Found>(
  { templatesDirectory, key, find }: TemplatePlace<Found>,
  make: (directory: string) => Promise<Made>,
): Promise<Found> {
  const partial = await makeOwnedDirectory(templatesDirectory, `${PARTIAL_TEMPLATE}-${key.slice(0, 12)}`);
  try {
    const { manifest, files } = await make(partial);
    await writeFile(join(partial, TEMPLATE_MANIFEST), `${JSON.stringify(manifest, null, 2)}\n`);
    for (const file of [...files, TEMPLATE_MANIFEST]) await flush(join(partial, file));
    await flush(partial);
    // The name first, in one step: of two that are ready at once one finds it taken.
    while (!(await renameUnlessTaken(partial, join(templatesDirectory, key)))) {
      const faster = await find(templatesDirectory, key);
      if (faster !== undefined) return faster;
      await rm(join(templatesDirectory, key), { recursive: true, force: true });
    }
    await flush(templatesDirectory);
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
  const built = await find(templatesDirectory, key);
  if (built !== undefined) return built;
  throw new InstaVMError('boot_failed', 'the template that was just written cannot be read back');
}

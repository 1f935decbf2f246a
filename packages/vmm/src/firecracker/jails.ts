/** All jails of a daemon: which there are, whose each is, and the end of those that nobody holds. */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { Cgroup, cgroupsIn, removeIfEmpty } from '../host/cgroup.ts';
import { parseJson } from '../host/parse-json.ts';

/** In the jail's directory, and not in its root. */
export const JAIL_RECORD = 'vmm.json';

const JailRecord = z.object({
  uid: z.number().int().positive(),
  templateKey: z.string(),
  /** Whose memory it started with, its own or below a snapshot's. */
  templateBuildId: z.string().optional(),
  /** Where its cgroup is. It is named after the directory of the daemon, which may have another name by now; the first ones do not say. */
  parentCgroup: z
    .string()
    .regex(/^[\w-]+(\/[\w-]+)*$/)
    .optional(),
});
export type JailRecord = z.infer<typeof JailRecord>;

/** An incarnation's with a hyphen, or a template's under way. Cgroups of other names beside them are not jails'. */
const JAIL_NAME = /^(vm|template)-/;

/** @param executable the file's name: releases may bear their version in it, and jails of the one before are where it was put */
export const jailsOf = (baseDirectory: string, executable: string): string => join(baseDirectory, executable);

export type JailPlace = { readonly executable: string; readonly name: string };

/** @returns undefined when it is missing or torn: then nothing ever ran there */
export async function readJailRecord(baseDirectory: string, place: JailPlace): Promise<JailRecord | undefined> {
  const path = join(jailsOf(baseDirectory, place.executable), place.name, JAIL_RECORD);
  return parseJson(JailRecord, await readFile(path, 'utf8').catch(() => ''));
}

/** All that there are, of every executable. */
export async function findJails(baseDirectory: string): Promise<JailPlace[]> {
  const found: JailPlace[] = [];
  for (const executable of await entriesOf(baseDirectory))
    for (const name of await entriesOf(jailsOf(baseDirectory, executable))) found.push({ executable, name });
  return found;
}

/**
 * Ends what runs in jails that nobody holds, and removes them, whole or not: also one of which nothing but the cgroup is left.
 * @param owned names
 * @returns how many
 */
export async function reapJails(
  baseDirectory: string,
  parentCgroup: string,
  owned: ReadonlySet<string>,
): Promise<number> {
  const reaped = new Set<string>();
  for (const place of await findJails(baseDirectory)) {
    const { executable, name } = place;
    if (owned.has(name)) continue;
    const parent = (await readJailRecord(baseDirectory, place))?.parentCgroup ?? parentCgroup;
    await new Cgroup(parent, name).end();
    if (parent !== parentCgroup) removeIfEmpty(parent);
    await rm(join(jailsOf(baseDirectory, executable), name), { recursive: true, force: true });
    reaped.add(name);
  }
  for (const name of await cgroupsIn(parentCgroup)) {
    if (!JAIL_NAME.test(name) || owned.has(name)) continue;
    await new Cgroup(parentCgroup, name).end();
    reaped.add(name);
  }
  if (owned.size === 0) removeIfEmpty(parentCgroup);
  return reaped.size;
}

const entriesOf = (directory: string): Promise<string[]> => readdir(directory).catch(() => []);

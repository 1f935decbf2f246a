/** All jails of a daemon: which there are, and the end of those that nobody holds. */
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Cgroup, cgroupsIn, removeIfEmpty } from '../host/cgroup.ts';

/** An incarnation's with a hyphen, or a template's under way. Cgroups of other names beside them are not jails'. */
const JAIL_NAME = /^(vm|template)-/;

/** @param executable the file's name: releases may bear their version in it, and jails of the one before are where it was put */
export const jailsOf = (baseDirectory: string, executable: string): string => join(baseDirectory, executable);

export type JailPlace = { readonly executable: string; readonly name: string };

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
  for (const { executable, name } of await findJails(baseDirectory)) {
    if (owned.has(name)) continue;
    await new Cgroup(parentCgroup, name).end();
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

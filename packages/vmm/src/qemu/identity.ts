/**
 * What proves that a process is the VMM of a run directory: a pid alone is anyone's after a while. Written beside its sockets when it was
 * started; believed only when the kernel says the same.
 */
import { readFile, readlink, realpath, rename, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { parseJson } from '../host/parse-json.ts';
import { startTicksOf } from '../host/process-token.ts';

const FILE = 'vmm.json';

const Identity = z.object({
  pid: z.number().int().positive(),
  /** As `startTicksOf` says. */
  startTicks: z.string(),
  executable: z.string(),
  templateKey: z.string(),
  /** Its own, where it has one. */
  uid: z.number().int().positive().optional(),
});
export type VmmIdentity = z.infer<typeof Identity>;
/** What the kernel adds to the path of a file or directory that is gone. */
export const REMOVED = / \(deleted\)$/;
/** Of one process, and of none that has its pid later. */
export type ProcessIdentity = Pick<VmmIdentity, 'pid' | 'startTicks' | 'executable'>;

/** Of a process that runs; undefined when it has ended. A zombie has. @throws when nobody can tell */
export async function observed(pid: number): Promise<ProcessIdentity | undefined> {
  const startTicks = startTicksOf(pid);
  if (startTicks === undefined) return undefined;
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => undefined);
  if (executable === undefined) return undefined;
  // After an upgrade the file may be gone from under the process; the kernel then says so behind the path.
  return { pid, startTicks, executable: executable.replace(REMOVED, '') };
}

/** For the VMM in `directory`, when it is one: what starts it has become QEMU. */
export async function writeIdentity(
  directory: string,
  pid: number,
  own: Pick<VmmIdentity, 'templateKey' | 'uid'>,
): Promise<void> {
  const seen = await observed(pid);
  // One that has ended already needs none; its end is told otherwise.
  if (seen === undefined) return;
  const partial = join(directory, `${FILE}.partial`);
  await writeFile(partial, JSON.stringify({ ...seen, ...own } satisfies VmmIdentity), { mode: 0o600 });
  await rename(partial, join(directory, FILE));
}

/** @returns undefined when nothing there runs under this directory's name */
export async function readIdentity(directory: string): Promise<VmmIdentity | undefined> {
  const identity = parseJson(Identity, await readFile(join(directory, FILE), 'utf8').catch(() => ''));
  if (identity === undefined || !(await isAlive(identity))) return undefined;
  return (await workplaceOf(identity.pid)) === (await realpath(directory)) ? identity : undefined;
}

/**
 * The directory that a VMM works in, and goes by the name of, without links; undefined for any other process. Where the directory is gone, the
 * kernel says so behind its path.
 */
export async function workplaceOf(pid: number): Promise<string | undefined> {
  // It may end between two reads, and others' may be unreadable: neither is one of ours.
  const directory = await readlink(`/proc/${pid}/cwd`).catch(() => undefined);
  if (directory === undefined) return undefined;
  const command = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return command.includes(`-name\0${basename(directory.replace(REMOVED, ''))}\0`) ? directory : undefined;
}

/** Whether the same process still runs. @throws when nobody can tell */
export async function isAlive({ pid, startTicks, executable }: ProcessIdentity): Promise<boolean> {
  const seen = await observed(pid);
  return seen?.startTicks === startTicks && seen.executable === executable;
}

/** Ends it; whoever has its pid by now is left alone. @returns whether it ran */
export async function endIfAlive(identity: ProcessIdentity): Promise<boolean> {
  if (!(await isAlive(identity))) return false;
  try {
    process.kill(identity.pid, 'SIGKILL');
    return true;
  } catch (error) {
    // It ended meanwhile.
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    throw error;
  }
}

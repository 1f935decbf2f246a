/**
 * What proves that a process is the VMM of a run directory: a pid alone is anyone's after a while. Written beside its sockets when it was
 * started; believed only when the kernel says the same.
 */
import { readFile, readlink, rename, writeFile } from 'node:fs/promises';
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

/** Of a process that runs; undefined when it has ended. */
async function observed(pid: number): Promise<Pick<VmmIdentity, 'startTicks' | 'executable'> | undefined> {
  const startTicks = startTicksOf(pid);
  if (startTicks === undefined) return undefined;
  const executable = await readlink(`/proc/${pid}/exe`).catch(() => undefined);
  return executable === undefined ? undefined : { startTicks, executable };
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
  await writeFile(partial, JSON.stringify({ pid, ...seen, ...own } satisfies VmmIdentity), { mode: 0o600 });
  await rename(partial, join(directory, FILE));
}

/** @returns undefined when nothing there runs under this directory's name */
export async function readIdentity(directory: string): Promise<VmmIdentity | undefined> {
  const identity = parseJson(Identity, await readFile(join(directory, FILE), 'utf8').catch(() => ''));
  if (identity === undefined || !(await isAlive(identity))) return undefined;
  const cwd = await readlink(`/proc/${identity.pid}/cwd`).catch(() => undefined);
  const command = await readFile(`/proc/${identity.pid}/cmdline`, 'utf8').catch(() => '');
  return cwd === directory && command.includes(`-name\0${basename(directory)}\0`) ? identity : undefined;
}

/** Whether the same process still runs. */
export async function isAlive({ pid, startTicks, executable }: VmmIdentity): Promise<boolean> {
  const seen = await observed(pid);
  // After an upgrade the file may be gone from under the process; the kernel then says so behind the path.
  return seen?.startTicks === startTicks && seen.executable.replace(/ \(deleted\)$/, '') === executable;
}

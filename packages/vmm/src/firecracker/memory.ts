/**
 * A guest's memory, as files. A template's is whole, with its pages of zeros left out. A snapshot's is what differs from its template; Firecracker,
 * which keeps account of the pages that the guest has written to since its restore, writes just those. It maps one file, so the two
 * are put together before a restore.
 */
import { execFile } from 'node:child_process';
import { rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { MachineSize } from '@instavm/core';
import type { Jail } from './jail.ts';
import { FILES } from './machine.ts';
import { applyDelta, storeDelta, subtractMemory } from './memory-delta.ts';

export const memoryBytesOf = ({ memoryMib }: MachineSize): number => memoryMib * 1024 * 1024;

/** Takes a template's memory out of the jail and leaves pages of zeros out of the file, which are most of a guest's. */
export async function keepMemory(jail: Jail, to: string): Promise<void> {
  await jail.takeOut(FILES.memory, to);
  await promisify(execFile)('fallocate', ['--dig-holes', to]);
}

/** Puts the memory of a snapshot into a jail in which nothing runs yet. */
export async function assembleMemory(
  jail: Jail,
  templateMemory: string,
  delta: string,
  memoryBytes: number,
): Promise<void> {
  await jail.copyIn(templateMemory, FILES.memory);
  await applyDelta(delta, join(jail.root, FILES.memory), memoryBytes);
}

/**
 * Gives Firecracker a file to write the pages to, with those in it that were other than the template's when it was restored.
 * @returns which of its snapshots is to be asked for
 */
export async function prepareMemory(jail: Jail, memoryBytes: number): Promise<'Diff' | 'Full'> {
  const base = await jail.memoryBase();
  const path = await jail.makeFile(FILES.memory, memoryBytes);
  if (base === undefined) return 'Full';
  if ((await stat(base)).size > 0) await applyDelta(base, path, memoryBytes);
  return 'Diff';
}

export type Written = {
  readonly type: 'Diff' | 'Full';
  readonly memoryBytes: number;
  readonly templateMemory: string;
  /** Of this filesystem; without, all of the memory is kept. */
  readonly keepsHoles: boolean;
};

/** Takes out what Firecracker wrote, and keeps what is not the template's. @returns the digest of the file */
export async function keepDelta(jail: Jail, to: string, written: Written): Promise<string> {
  const { memoryBytes, keepsHoles } = written;
  const [taken, sparse] = [`${to}.taken`, `${to}.sparse`];
  await jail.takeOut(FILES.memory, taken);
  try {
    if (written.type === 'Diff' || !keepsHoles) return await storeDelta(taken, to, memoryBytes, keepsHoles);
    await subtractMemory(taken, written.templateMemory, sparse, memoryBytes);
    return await storeDelta(sparse, to, memoryBytes, keepsHoles);
  } finally {
    for (const path of [taken, sparse]) await rm(path, { force: true });
  }
}

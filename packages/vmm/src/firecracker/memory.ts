/** The memory that Firecracker writes into a file: all of it, the pages too that hold nothing. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { Jail } from './jail.ts';
import { FILES } from './machine.ts';

/** Takes the memory out of the jail and leaves pages of zeros out of the file, which are most of a guest's. */
export async function keepMemory(jail: Jail, to: string): Promise<void> {
  await jail.takeOut(FILES.memory, to);
  await promisify(execFile)('fallocate', ['--dig-holes', to]);
}

/** Copies of overlays: mostly holes, so copying means copying the few blocks that are there. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/** Copies the blocks that are there, or shares them where the file system can (FICLONE). */
export async function copySparse(from: string, to: string): Promise<void> {
  await promisify(execFile)('cp', ['--sparse=always', '--reflink=auto', '--', from, to]);
}

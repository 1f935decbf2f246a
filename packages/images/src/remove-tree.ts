/** Removes directories, those included whose files belong to this user's subordinate ids. */
import { rm } from 'node:fs/promises';
import { runCommand } from './command.ts';

/** unshare(1) arguments: root, with this user's whole range of ids, in a user namespace. */
export const ROOT_OF_A_NAMESPACE = ['--map-auto', '--map-root-user'];

/** A missing directory is removed already. */
export async function removeTree(path: string): Promise<void> {
  try {
    await rm(path, { recursive: true, force: true });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'EACCES' && code !== 'EPERM') throw error;
    await runCommand('unshare', [...ROOT_OF_A_NAMESPACE, 'rm', '-rf', '--', path]);
  }
}

/** What a snapshot or a restore that failed is told as, whichever backend it was. */
import { InstaVMError } from '@instavm/wire';
import { isNoRoom } from './files.ts';

/** @returns snapshot_failed or capacity_unavailable; an error that has a name already as it is */
export function snapshotFailure(error: unknown): InstaVMError {
  if (error instanceof InstaVMError && error.code !== 'internal') return error;
  if (isNoRoom(error)) return noRoom('snapshot', error);
  return new InstaVMError('snapshot_failed', `the snapshot could not be made: ${reasonOf(error)}`, { cause: error });
}

/** For whoever may not know where files of the host are; the log has the cause. */
export const reasonOf = (error: unknown): string =>
  String((error as Partial<Error>).message ?? error).replaceAll(/(?<![\w.])\/(?:[^\s/'"]+\/){2,}/g, '');

/** @returns capacity_unavailable where the disk is full; any other error as it is */
export const restoreFailure = (error: unknown): unknown => (isNoRoom(error) ? noRoom('microVM', error) : error);

const noRoom = (what: string, cause: unknown): InstaVMError =>
  new InstaVMError('capacity_unavailable', `the host has no room for the ${what}`, { cause });

/** What a snapshot that could not be made is told as, whichever backend made it. */
import { InstaVMError } from '@instavm/wire';
import { isNoRoom } from './files.ts';

/** @returns snapshot_failed or capacity_unavailable; an error that has a name already as it is */
export function snapshotFailure(error: unknown): InstaVMError {
  if (error instanceof InstaVMError && error.code !== 'internal') return error;
  if (isNoRoom(error))
    return new InstaVMError('capacity_unavailable', 'the host has no room for the snapshot', { cause: error });
  const { message } = error as Error;
  return new InstaVMError('snapshot_failed', `the snapshot could not be made: ${message}`, { cause: error });
}

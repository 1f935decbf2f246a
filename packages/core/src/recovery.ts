/**
 * What a daemon makes of the sandboxes that an earlier one left, decided from their records and from what is really there. Pure;
 * `SandboxOwner.recover` does it.
 */
import type { SandboxState } from './states.ts';

export type RecoveryPlan =
  /** It runs on, under the same incarnation. */
  | 'adopt'
  /** Its state is saved: what is left of the microVM goes. */
  | 'suspended'
  /** Its start was not finished and nobody was told of it. */
  | 'undo_start'
  /** Its end is finished. */
  | 'finish_end'
  | 'lost';

/**
 * @param isAlive whether its microVM was found running and proven to be it
 * @param isSaved whether its state is on disk, complete and undamaged
 */
export function planRecovery(state: SandboxState, isAlive: boolean, isSaved: boolean): RecoveryPlan {
  switch (state) {
    case 'creating':
      return 'undo_start';
    case 'running':
      return isAlive ? 'adopt' : 'lost';
    case 'suspending':
      // A guest whose state was complete has not run since.
      if (isSaved) return 'suspended';
      return isAlive ? 'adopt' : 'lost';
    case 'resuming':
      return isSaved ? 'suspended' : 'lost';
    case 'stopping':
      return 'finish_end';
    default:
      throw new Error(`${state} needs no recovery`);
  }
}

/** What the neighbours of an owner work with: its ports, its record, and what it holds while it runs. */
import { InstaVMError } from '@instavm/wire';
import type { Admission } from './admission.ts';
import type { ActorSource } from './audit/event.ts';
import type { ConstructionPorts } from './construction.ts';
import type { GuestIdentity, GuestLink } from './guest.ts';
import type { AccountId } from './ids.ts';
import type { SpendingGate } from './metering/credit.ts';
import type { UsageObserver } from './metering/meter.ts';
import type { QuotaSource } from './quotas.ts';
import type { RecordKeeper } from './record-keeper.ts';
import type { SandboxChange, SandboxRecords } from './records.ts';
import type { Running } from './running.ts';
import type { SandboxRecord } from './sandbox.ts';
import type { SavedStates } from './saved-states.ts';
import type { StepObserver } from './steps.ts';
import type { Templates } from './templates.ts';
import type { Turns } from './turns.ts';
import type { WarmPool } from './warm-pool.ts';

export type OwnerPorts<Guest extends GuestLink> = ConstructionPorts<Guest> & {
  readonly templates: Templates;
  readonly records: SandboxRecords;
  readonly states: SavedStates;
  readonly pool: WarmPool<Guest>;
  readonly admission: Admission;
  readonly turns: Turns;
  readonly reached: StepObserver;
  readonly usage: UsageObserver;
  readonly actor: ActorSource;
  readonly spending: SpendingGate;
  readonly quotas: QuotaSource;
  /** @throws quota_exceeded when an account stores more than it may */
  readonly requireStorage: (accountId: AccountId) => Promise<void>;
};

export type OwnerParts<Guest extends GuestLink> = {
  readonly ports: OwnerPorts<Guest>;
  readonly keeper: RecordKeeper;
  readonly running: Running<Guest>;
};

export const PERSONALIZE_DEADLINE_MS = 30_000;

export function identityOf({ id, env }: SandboxRecord): GuestIdentity {
  const hex = id.replaceAll('-', '');
  // machine-id(5) wants a value that is stable for the machine and no secret; the sandbox id is both.
  return { hostname: `sandbox-${hex.slice(0, 12)}`, machineIdHex: hex, env };
}

export const idsOf = ({ id, incarnationId }: SandboxRecord) => ({ sandboxId: id, incarnationId });

/** Nothing of it runs, and nothing is kept. */
export const failure = (stateReason: string, endedAt: Date): SandboxChange => ({
  state: 'failed',
  stateReason,
  endCause: 'loss',
  endedAt,
  expiresAt: null,
  savedIn: null,
  savedBytes: null,
  leaseLeftMs: null,
});

/** Why there is no guest to ask. */
export function absence({ state, stateReason, endCause }: SandboxRecord): InstaVMError {
  // Its microVM was left to the next daemon.
  if (state === 'running') return new InstaVMError('shutting_down', 'the daemon is stopping');
  const sentence = `the sandbox is ${state}${stateReason === null ? '' : `: ${stateReason}`}`;
  const otherwise = endCause === 'expiry' ? 'lease_expired' : 'invalid_state';
  return new InstaVMError(state === 'suspended' ? 'sandbox_suspended' : otherwise, sentence, { details: { state } });
}

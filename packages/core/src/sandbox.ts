/**
 * A sandbox as a record, and the policy of its states as data: which request is accepted in which state, is already so, or is
 * denied with a reason. Pure.
 *
 *     creating ──► running ──► stopping ──► stopped ──► creating (a new incarnation)
 *         │        │  ▲  │                     ▲
 *         │        │  │  └─► suspending ──► suspended ──► resuming ──► running (a new incarnation, the old memory)
 *         │        │  └─────────┘              │ (end)        │
 *         │        │                           ▼              ▼ (it stays suspended when that fails)
 *         └────────┴──────► failed ────────► stopped
 */

import type { AccountId, IncarnationId, SandboxId, SnapshotId } from './ids.ts';
import type { MachineSize } from './vmm.ts';

/** `creating`, `suspending`, `resuming` and `stopping` pass, with a deadline; the others rest. */
export type SandboxState =
  | 'creating'
  | 'running'
  | 'suspending'
  | 'suspended'
  | 'resuming'
  | 'stopping'
  | 'stopped'
  | 'failed';

/** What ended the latest incarnation: its owner, its lease, the daemon, or an accident. */
export type EndCause = 'request' | 'expiry' | 'daemon' | 'loss';

/** Outbound access as the wire has it. Kept for the sandbox; until there is an egress gateway no sandbox has any. */
export type EgressPolicy = {
  readonly allowHttp: boolean;
  readonly allowHttps: boolean;
  readonly allowPublicRepos: boolean;
  readonly allowedDomains: readonly string[];
  readonly allowedCidrs: readonly string[];
};

export type SandboxRecord = {
  readonly id: SandboxId;
  readonly accountId: AccountId;
  readonly state: SandboxState;
  /** Why it is stopped or failed; a sentence for people. */
  readonly stateReason: string | null;
  /** Null while it runs. */
  readonly endCause: EndCause | null;
  /** The latest incarnation, alive or not. */
  readonly incarnationId: IncarnationId | null;
  /** Grows with every incarnation; a late callback of an older one changes nothing. */
  readonly epoch: number;
  readonly size: MachineSize;
  /** Length of a lease; each incarnation gets a new one. */
  readonly ttlSeconds: number;
  readonly createdAt: Date;
  /** When the present lease ends; null when there is no incarnation. */
  readonly expiresAt: Date | null;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string>>;
  readonly egress: EgressPolicy | null;
  /** Where a new incarnation begins instead of in its template; null for a sandbox that began there. */
  readonly snapshotId: SnapshotId | null;
  /** What a suspended sandbox is kept in, and how much of its lease is left. */
  readonly suspension: Suspension | null;
  /** At the end of its lease it is suspended instead of ended. */
  readonly autoSuspend: boolean;
  /** A command wakes it when it is suspended. */
  readonly autoResume: boolean;
  /** A snapshot under this name is taken before its lease ends it; null takes none. */
  readonly snapshotOnExpiry: string | null;
};

export type Suspension = { readonly snapshotId: SnapshotId; readonly leaseLeftMs: number };

/** `wake` is a start that nobody asked for by name: a command for a sandbox that has no microVM. */
export type SandboxRequest = 'start' | 'wake' | 'suspend' | 'snapshot' | 'end';

export type Verdict =
  | { readonly kind: 'accept' }
  | { readonly kind: 'already_so' }
  | { readonly kind: 'deny'; readonly reason: string };

const accept: Verdict = { kind: 'accept' };
const alreadySo: Verdict = { kind: 'already_so' };
const deny = (reason: string): Verdict => ({ kind: 'deny', reason });

const BEING_ENDED = deny('the sandbox is being ended; ask again when it has stopped');
const BEING_SUSPENDED = deny('the sandbox is being suspended; ask again when it is');
const NOT_RUNNING = deny('the sandbox does not run');
const STARTING = deny('the sandbox is being started; ask again when it runs');

const POLICY: Readonly<Record<SandboxState, Readonly<Record<SandboxRequest, Verdict>>>> = {
  creating: { start: alreadySo, wake: alreadySo, suspend: STARTING, snapshot: STARTING, end: accept },
  running: { start: alreadySo, wake: alreadySo, suspend: accept, snapshot: accept, end: accept },
  suspending: {
    start: BEING_SUSPENDED,
    wake: BEING_SUSPENDED,
    suspend: alreadySo,
    snapshot: BEING_SUSPENDED,
    end: accept,
  },
  suspended: { start: accept, wake: accept, suspend: alreadySo, snapshot: NOT_RUNNING, end: accept },
  resuming: { start: alreadySo, wake: alreadySo, suspend: STARTING, snapshot: STARTING, end: accept },
  stopping: { start: BEING_ENDED, wake: BEING_ENDED, suspend: BEING_ENDED, snapshot: BEING_ENDED, end: alreadySo },
  stopped: { start: accept, wake: accept, suspend: NOT_RUNNING, snapshot: NOT_RUNNING, end: alreadySo },
  failed: { start: accept, wake: accept, suspend: NOT_RUNNING, snapshot: NOT_RUNNING, end: accept },
};

/** A sandbox that someone ended stays so until someone starts it: a late command must not bring it back. */
export function decide(
  { state, endCause, autoResume }: Pick<SandboxRecord, 'state' | 'endCause' | 'autoResume'>,
  request: SandboxRequest,
): Verdict {
  if (request === 'wake' && state === 'stopped' && endCause === 'request') return deny('the sandbox was ended');
  if (request === 'wake' && state === 'suspended' && !autoResume)
    return deny('the sandbox is suspended and does not resume by itself; resume it first');
  return POLICY[state][request];
}

/** Which state may follow which. */
export const TRANSITIONS: Readonly<Record<SandboxState, readonly SandboxState[]>> = {
  creating: ['running', 'failed'],
  running: ['suspending', 'stopping', 'stopped', 'failed'],
  suspending: ['suspended', 'running', 'stopped', 'failed'],
  suspended: ['resuming', 'stopping'],
  resuming: ['running', 'suspended'],
  stopping: ['stopped', 'failed'],
  stopped: ['creating'],
  failed: ['creating', 'stopping'],
};

/** Sizes that templates exist for. A request is rounded up, so nobody gets less than was asked. */
export const MEMORY_CLASSES_MIB = [256, 512, 1024, 2048, 4096, 8192] as const;
export const VCPU_CHOICES = [1, 2, 4, 6, 8] as const;
export const DEFAULT_SIZE: MachineSize = { memoryMib: 512, vcpus: 2 };

/** @param memoryMib 128 to 8192 */
export function memoryClass(memoryMib: number): number {
  return MEMORY_CLASSES_MIB.find((size) => size >= memoryMib) ?? 8192;
}

/**
 * A sandbox as a record, and the policy of its states as data: which request is accepted in which state, is already so, or is
 * denied with a reason. Pure.
 *
 *     creating ──► running ──► stopping ──► stopped ──► creating (a new incarnation)
 *         │           │                        ▲
 *         └───────────┴──────► failed ─────────┘ (end)
 */

import type { AccountId, IncarnationId, SandboxId } from './ids.ts';
import type { MachineSize } from './vmm.ts';

/** `creating` and `stopping` pass, with a deadline; the others rest. */
export type SandboxState = 'creating' | 'running' | 'stopping' | 'stopped' | 'failed';

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
};

/** `wake` is a start that nobody asked for by name: a command for a sandbox that has no microVM. */
export type SandboxRequest = 'start' | 'wake' | 'end';

export type Verdict =
  | { readonly kind: 'accept' }
  | { readonly kind: 'already_so' }
  | { readonly kind: 'deny'; readonly reason: string };

const accept: Verdict = { kind: 'accept' };
const alreadySo: Verdict = { kind: 'already_so' };
const deny = (reason: string): Verdict => ({ kind: 'deny', reason });

const BEING_ENDED = 'the sandbox is being ended; ask again when it has stopped';

const POLICY: Readonly<Record<SandboxState, Readonly<Record<SandboxRequest, Verdict>>>> = {
  creating: { start: alreadySo, wake: alreadySo, end: accept },
  running: { start: alreadySo, wake: alreadySo, end: accept },
  stopping: { start: deny(BEING_ENDED), wake: deny(BEING_ENDED), end: alreadySo },
  stopped: { start: accept, wake: accept, end: alreadySo },
  failed: { start: accept, wake: accept, end: accept },
};

/** A sandbox that someone ended stays so until someone starts it: a late command must not bring it back. */
export function decide(
  { state, endCause }: Pick<SandboxRecord, 'state' | 'endCause'>,
  request: SandboxRequest,
): Verdict {
  if (state === 'stopped' && endCause === 'request' && request === 'wake') return deny('the sandbox was ended');
  return POLICY[state][request];
}

/** Which state may follow which. */
export const TRANSITIONS: Readonly<Record<SandboxState, readonly SandboxState[]>> = {
  creating: ['running', 'failed'],
  running: ['stopping', 'stopped', 'failed'],
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

/** A sandbox as a record: what is kept of it, whether or not it has a microVM. */
import type { AccountId, FilesId, IncarnationId, SandboxId, SnapshotId } from './ids.ts';
import type { EndCause, SandboxState } from './states.ts';
import type { MachineSize } from './vmm.ts';

/** Outbound access as the wire has it. Kept for the sandbox, and carried inside its snapshots. */
export type EgressPolicy = {
  readonly allowHttp: boolean;
  readonly allowHttps: boolean;
  readonly allowPublicRepos: boolean;
  readonly allowedDomains: readonly string[];
  readonly allowedCidrs: readonly string[];
};

/** What happens to a sandbox without anyone asking by name. */
export type LifecyclePolicy = {
  /** Whether a command, a terminal, a file or a preview resumes it. */
  readonly autoResume: boolean;
  /** At the end of its lease: suspend instead of ending. */
  readonly autoSuspend: boolean;
  /** At the end of its lease, if it is not suspended: keep a snapshot of this name; null keeps none. */
  readonly snapshotOnExpiry: string | null;
  /** Without activity for so long it is suspended; null: never. */
  readonly idleSuspendSeconds: number | null;
};

export const DEFAULT_LIFECYCLE: LifecyclePolicy = {
  autoResume: true,
  autoSuspend: false,
  snapshotOnExpiry: null,
  idleSuspendSeconds: null,
};

/** What a sandbox is made by, and what its snapshots carry and re-impose. */
export type SandboxSpec = {
  readonly size: MachineSize;
  /** Length of a lease; each fresh incarnation gets a new one, a resumed one the rest of its own. */
  readonly ttlSeconds: number;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly env: Readonly<Record<string, string>>;
  readonly egress: EgressPolicy | null;
  readonly lifecycle: LifecyclePolicy;
};

export type SandboxRecord = SandboxSpec & {
  readonly id: SandboxId;
  readonly accountId: AccountId;
  readonly state: SandboxState;
  /** Why it is stopped, suspended or failed; a sentence for people. */
  readonly stateReason: string | null;
  /** Null while it runs or is suspended. */
  readonly endCause: EndCause | null;
  /** The latest incarnation, alive or not. */
  readonly incarnationId: IncarnationId | null;
  /** Grows with every incarnation; a late callback of an older one changes nothing. */
  readonly epoch: number;
  readonly createdAt: Date;
  /** When the present lease ends; null when there is no incarnation. */
  readonly expiresAt: Date | null;
  readonly startedAt: Date | null;
  readonly endedAt: Date | null;
  /** Where its memory is, or is about to be, while it is suspended. */
  readonly savedIn: FilesId | null;
  /** What that occupies on the disk. */
  readonly savedBytes: number | null;
  /** What was left of the lease when it was suspended: the clock stops meanwhile. */
  readonly leaseLeftMs: number | null;
  /** The snapshot that it was made from. */
  readonly snapshotId: SnapshotId | null;
};

export const specOf = ({ size, ttlSeconds, metadata, env, egress, lifecycle }: SandboxSpec): SandboxSpec => ({
  size,
  ttlSeconds,
  metadata,
  env,
  egress,
  lifecycle,
});

/** Sizes that templates exist for. A request is rounded up, so nobody gets less than was asked. */
export const MEMORY_CLASSES_MIB = [256, 512, 1024, 2048, 4096, 8192] as const;
export const VCPU_CHOICES = [1, 2, 4, 6, 8] as const;
export const DEFAULT_SIZE: MachineSize = { memoryMib: 512, vcpus: 2 };

/** @param memoryMib 128 to 8192 */
export function memoryClass(memoryMib: number): number {
  return MEMORY_CLASSES_MIB.find((size) => size >= memoryMib) ?? 8192;
}

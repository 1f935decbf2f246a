/** How sandboxes and snapshots look on the wire, and how wire ids find them. */
import {
  type AccountId,
  type Entries,
  parseIncarnationId,
  parseSandboxId,
  parseSnapshotId,
  type SandboxId,
  type SandboxOwner,
  type SandboxRecord,
  type SandboxState,
  type SnapshotRecord,
} from '@instavm/core';
import type { Account } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import type { Services } from '../app.ts';
import { type Caller, isFor } from '../auth.ts';
import type { Guest } from '../guest/guest.ts';
import { aboutSandbox } from '../operations/tracing.ts';

const LIST_LIMIT = 1000;

/** @throws sandbox_not_found */
export async function ownerOf(services: Services, caller: Caller, sessionId: string): Promise<SandboxOwner<Guest>> {
  const id = parseSandboxId(sessionId);
  if (id === undefined) throw new InstaVMError('sandbox_not_found', `there is no sandbox ${sessionId.slice(0, 80)}`);
  const owner = await services.sandboxes.get(caller.account.id, id);
  if (!isFor(caller, owner.record, owner.record.metadata))
    throw new InstaVMError('sandbox_not_found', `there is no sandbox ${id}`);
  aboutSandbox(id);
  return owner;
}

/** @throws incarnation_not_found */
export async function ownerOfVm(services: Services, caller: Caller, vmId: string): Promise<SandboxOwner<Guest>> {
  const id = parseIncarnationId(vmId);
  if (id === undefined) throw new InstaVMError('incarnation_not_found', `there is no VM ${vmId.slice(0, 80)}`);
  const owner = await services.sandboxes.getByIncarnation(caller.account.id, id);
  if (!isFor(caller, owner.record, owner.record.metadata))
    throw new InstaVMError('incarnation_not_found', `there is no VM ${id}`);
  aboutSandbox(owner.record.id);
  return owner;
}

/** Whether what belongs to a sandbox of the caller's account is there for the caller. @throws sandbox_not_found */
export async function isSandboxFor(services: Services, caller: Caller, id: SandboxId): Promise<boolean> {
  if (caller.sandboxMetadata === null) return true;
  const { record } = await services.sandboxes.get(caller.account.id, id);
  return isFor(caller, record, record.metadata);
}

type Wanted = {
  readonly limit?: number;
  /** Only those with a microVM. */
  readonly alive?: boolean;
  /** Also those that have ended; true when left out. */
  readonly ended?: boolean;
  readonly metadata?: Entries | undefined;
  /** Id of the last one before the page. */
  readonly before?: string | undefined;
};

/** Newest first. @throws sandbox_not_found for a `before` that is not there for the caller */
export async function recordsFor(
  services: Services,
  caller: Caller,
  { limit = LIST_LIMIT, alive, ended, metadata, before }: Wanted = {},
): Promise<SandboxRecord[]> {
  const last = before === undefined ? undefined : (await ownerOf(services, caller, before)).record;
  const wanted = [caller.sandboxMetadata, metadata].filter((entries) => entries != null);
  return services.sandboxes.list(caller.account.id, { limit, alive, ended, metadata: wanted, before: last });
}

/** By e-mail address or id. @throws account_not_found */
export async function accountNamed({ accounts }: Services, name: string): Promise<Account> {
  const account = (await accounts.findByEmail(name)) ?? (await accounts.find(name as AccountId));
  if (account === undefined) throw new InstaVMError('account_not_found', `there is no account ${name.slice(0, 80)}`);
  return account;
}

/** @throws snapshot_not_found */
export async function snapshotOf(services: Services, caller: Caller, text: string): Promise<SnapshotRecord> {
  const id = parseSnapshotId(text);
  const snapshot = id && (await services.sandboxes.snapshots.get(caller.account.id, id));
  if (snapshot === undefined || !isFor(caller, snapshot, snapshot.spec.metadata))
    throw new InstaVMError('snapshot_not_found', `there is no snapshot ${text.slice(0, 80)}`);
  return snapshot;
}

/** Newest first. */
export async function snapshotsFor(services: Services, caller: Caller): Promise<SnapshotRecord[]> {
  const wanted = caller.sandboxMetadata === null ? [] : [caller.sandboxMetadata];
  return services.sandboxes.snapshots.list(caller.account.id, LIST_LIMIT, wanted);
}

/** The contract's words for our states, and its kind of words where it has none. */
const VM_STATUS: Readonly<Record<SandboxState, string>> = {
  creating: 'creating',
  running: 'active',
  suspending: 'suspending',
  suspended: 'suspended',
  resuming: 'resuming',
  stopping: 'terminated',
  stopped: 'terminated',
  failed: 'failed',
};

export const vmStatus = ({ state }: SandboxRecord): string => VM_STATUS[state];

/** Whether a command finds it running, or brings it back with its memory. */
export const isUsable = ({ state, lifecycle }: SandboxRecord): boolean =>
  state === 'suspended' ? lifecycle.autoResume : ['creating', 'running', 'suspending', 'resuming'].includes(state);

export function vmView(record: SandboxRecord) {
  const { lifecycle } = record;
  return {
    vm_id: record.incarnationId ?? '',
    session_id: record.id,
    status: vmStatus(record),
    created_at: (record.startedAt ?? record.createdAt).toISOString(),
    expires_at: record.expiresAt?.toISOString() ?? null,
    memory_mb: record.size.memoryMib,
    vcpu_count: record.size.vcpus,
    metadata: record.metadata,
    ssh_host: null,
    snapshot_id: record.snapshotId,
    auto_suspend: lifecycle.autoSuspend,
    auto_resume: lifecycle.autoResume,
    snapshot_on_terminate: lifecycle.snapshotOnExpiry !== null,
    snapshot_name: lifecycle.snapshotOnExpiry,
  };
}

export function sandboxView(record: SandboxRecord) {
  const { lifecycle, leaseLeftMs } = record;
  return {
    id: record.id,
    state: record.state,
    state_reason: record.stateReason,
    incarnation_id: record.incarnationId,
    created_at: record.createdAt.toISOString(),
    expires_at: record.expiresAt?.toISOString() ?? null,
    memory_mb: record.size.memoryMib,
    vcpu_count: record.size.vcpus,
    metadata: record.metadata,
    ttl_seconds: record.ttlSeconds,
    lease_left_seconds: record.state === 'suspended' && leaseLeftMs !== null ? leaseLeftMs / 1000 : null,
    snapshot_id: record.snapshotId,
    auto_resume: lifecycle.autoResume,
    auto_suspend: lifecycle.autoSuspend,
    snapshot_on_expiry: lifecycle.snapshotOnExpiry,
    idle_suspend_seconds: lifecycle.idleSuspendSeconds,
  };
}

/** The contract's object (§3). Only `error` and `last_error` say why one failed. */
export function snapshotView(record: SnapshotRecord) {
  return {
    id: record.id,
    snapshot_id: record.id,
    name: record.name ?? record.id,
    status: record.status,
    type: 'user' as const,
    snapshot_type: 'vm',
    is_public: false,
    error: record.lastError,
    last_error: record.lastError,
    source_vm_id: record.incarnationId,
    source_session_id: record.sandboxId,
    oci_image: null,
    vcpu_count: record.spec.size.vcpus,
    memory_mb: record.spec.size.memoryMib,
    size_bytes: record.sizeBytes ?? 0,
    vm_lifetime_seconds: record.spec.ttlSeconds,
    metadata: record.spec.metadata,
    created_at: record.createdAt.toISOString(),
    updated_at: record.updatedAt.toISOString(),
  };
}

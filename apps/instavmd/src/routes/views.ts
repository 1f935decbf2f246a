/** How sandboxes look on the wire, and how wire ids find them. */
import {
  type AccountId,
  parseIncarnationId,
  parseSandboxId,
  type SandboxOwner,
  type SandboxRecord,
} from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import type { Services } from '../app.ts';
import type { Guest } from '../guest/guest.ts';

/** @throws sandbox_not_found */
export async function ownerOf(
  services: Services,
  accountId: AccountId,
  sessionId: string,
): Promise<SandboxOwner<Guest>> {
  const id = parseSandboxId(sessionId);
  if (id === undefined) throw new InstaVMError('sandbox_not_found', `there is no session ${sessionId.slice(0, 80)}`);
  return services.sandboxes.get(accountId, id);
}

/** @throws incarnation_not_found */
export async function ownerOfVm(services: Services, accountId: AccountId, vmId: string): Promise<SandboxOwner<Guest>> {
  const id = parseIncarnationId(vmId);
  if (id === undefined) throw new InstaVMError('incarnation_not_found', `there is no VM ${vmId.slice(0, 80)}`);
  return services.sandboxes.getByIncarnation(accountId, id);
}

/** The contract's words for our states. */
export function vmStatus(record: SandboxRecord): string {
  if (record.state === 'running') return 'active';
  if (record.state === 'creating' || record.state === 'resuming') return 'creating';
  if (record.state === 'suspending' || record.state === 'suspended') return record.state;
  if (record.state === 'failed') return 'failed';
  return 'terminated';
}

export function vmView(record: SandboxRecord) {
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
  };
}

export function sandboxView(record: SandboxRecord) {
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
    snapshot_id: record.snapshotId,
    auto_suspend: record.autoSuspend,
    auto_resume: record.autoResume,
  };
}

/** Making a sandbox, for the three routes that do. */
import {
  type AccountId,
  DEFAULT_SIZE,
  type EgressPolicy,
  memoryClass,
  parseSnapshotId,
  type SandboxOwner,
} from '@instavm/core';
import { type EgressPolicyBody, InstaVMError } from '@instavm/wire';
import type { Services } from '../app.ts';
import type { Guest } from '../guest/guest.ts';

export type Wanted = {
  readonly memory_mb?: number | undefined;
  readonly vcpu_count?: number | undefined;
  readonly metadata?: Record<string, unknown> | undefined;
  readonly env?: Record<string, string> | undefined;
  readonly snapshot_id?: string | null | undefined;
  readonly snapshot_on_terminate?: boolean | null | undefined;
  readonly snapshot_name?: string | null | undefined;
  readonly auto_suspend?: boolean | null | undefined;
  readonly auto_resume?: boolean | null | undefined;
};

export const DEFAULT_LIFETIME_SECONDS = 300;
const DEFAULT_SNAPSHOT_NAME = 'at the end of its lifetime';

/** @throws as `SandboxService.create` and `createFrom` */
export async function createSandbox(
  services: Services,
  accountId: AccountId,
  wanted: Wanted,
  ttlSeconds: number | undefined,
  egress: EgressPolicy | null = null,
): Promise<SandboxOwner<Guest>> {
  const { metadata, env, snapshot_id } = wanted;
  const expiry = expirySettings(wanted);
  if (snapshot_id != null) {
    if (wanted.memory_mb !== undefined || wanted.vcpu_count !== undefined)
      throw new InstaVMError('invalid_argument', "memory_mb, vcpu_count: the size is the snapshot's");
    const given = { ...expiry, ...(ttlSeconds === undefined ? {} : { ttlSeconds }) };
    return services.sandboxes.createFrom(accountId, snapshotIdOf(snapshot_id), {
      ...given,
      ...(metadata === undefined ? {} : { metadata }),
      ...(env === undefined ? {} : { env }),
      ...(egress === null ? {} : { egress }),
    });
  }
  return services.sandboxes.create({
    accountId,
    size: {
      memoryMib: memoryClass(wanted.memory_mb ?? DEFAULT_SIZE.memoryMib),
      vcpus: wanted.vcpu_count ?? DEFAULT_SIZE.vcpus,
    },
    ttlSeconds: ttlSeconds ?? DEFAULT_LIFETIME_SECONDS,
    metadata: metadata ?? {},
    env: env ?? {},
    egress,
    snapshotId: null,
    autoSuspend: false,
    autoResume: true,
    snapshotOnExpiry: null,
    ...expiry,
  });
}

/** What was asked for about the end of the lease; nothing of what was not. */
export function expirySettings(wanted: Wanted) {
  const { auto_suspend, auto_resume, snapshot_on_terminate, snapshot_name } = wanted;
  const name = snapshot_on_terminate === false ? null : (snapshot_name ?? DEFAULT_SNAPSHOT_NAME);
  const isAsked = snapshot_on_terminate != null || snapshot_name != null;
  return {
    ...(auto_suspend == null ? {} : { autoSuspend: auto_suspend }),
    ...(auto_resume == null ? {} : { autoResume: auto_resume }),
    ...(isAsked ? { snapshotOnExpiry: name } : {}),
  };
}

/** @throws snapshot_not_found */
export function snapshotIdOf(text: string) {
  const id = parseSnapshotId(text);
  if (id === undefined) throw new InstaVMError('snapshot_not_found', `there is no snapshot ${text.slice(0, 80)}`);
  return id;
}

export const egressFromBody = (body: EgressPolicyBody): EgressPolicy => ({
  allowHttp: body.allow_http,
  allowHttps: body.allow_https,
  allowPublicRepos: body.allow_public_repos,
  allowedDomains: body.allowed_domains,
  allowedCidrs: body.allowed_cidrs,
});

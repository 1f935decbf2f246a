/** Making a sandbox, for the three routes that do. */
import { type AccountId, DEFAULT_SIZE, type EgressPolicy, memoryClass, type SandboxOwner } from '@instavm/core';
import type { EgressPolicyBody } from '@instavm/wire';
import type { Services } from '../app.ts';
import type { Guest } from '../guest/guest.ts';

export type Wanted = {
  readonly memory_mb?: number | undefined;
  readonly vcpu_count?: number | undefined;
  readonly metadata?: Record<string, unknown> | undefined;
  readonly env?: Record<string, string> | undefined;
};

/** @throws as `SandboxService.create` */
export async function createSandbox(
  services: Services,
  accountId: AccountId,
  wanted: Wanted,
  ttlSeconds: number,
  egress: EgressPolicy | null = null,
): Promise<SandboxOwner<Guest>> {
  return services.sandboxes.create({
    accountId,
    size: {
      memoryMib: memoryClass(wanted.memory_mb ?? DEFAULT_SIZE.memoryMib),
      vcpus: wanted.vcpu_count ?? DEFAULT_SIZE.vcpus,
    },
    ttlSeconds,
    metadata: wanted.metadata ?? {},
    env: wanted.env ?? {},
    egress,
  });
}

export const egressFromBody = (body: EgressPolicyBody): EgressPolicy => ({
  allowHttp: body.allow_http,
  allowHttps: body.allow_https,
  allowPublicRepos: body.allow_public_repos,
  allowedDomains: body.allowed_domains,
  allowedCidrs: body.allowed_cidrs,
});

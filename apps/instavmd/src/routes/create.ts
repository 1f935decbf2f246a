/** Making a sandbox, fresh or from a snapshot, for the routes that do. */
import {
  DEFAULT_LIFECYCLE,
  DEFAULT_SIZE,
  type EgressPolicy,
  type LifecyclePolicy,
  memoryClass,
  type SandboxOwner,
  type SpecChange,
} from '@instavm/core';
import { type EgressPolicyBody, InstaVMError } from '@instavm/wire';
import type { Services } from '../app.ts';
import { type Caller, ownMetadata } from '../auth.ts';
import type { EgressRules } from '../egress.ts';
import type { Guest } from '../guest/guest.ts';
import { snapshotOf } from './views.ts';

const DEFAULT_LIFETIME_SECONDS = 300;

type LifecycleFields = {
  readonly auto_resume?: boolean | null | undefined;
  readonly auto_suspend?: boolean | null | undefined;
  /** A name; null for none. */
  readonly snapshot_on_expiry?: string | null | undefined;
  readonly idle_suspend_seconds?: number | null | undefined;
};

export type Wanted = LifecycleFields & {
  readonly memory_mb?: number | undefined;
  readonly vcpu_count?: number | undefined;
  readonly metadata?: Record<string, unknown> | undefined;
  readonly env?: Record<string, string> | undefined;
  readonly ttlSeconds?: number | undefined;
  readonly egress?: EgressPolicy | undefined;
  readonly snapshot_id?: string | null | undefined;
};

/**
 * What is not said is the default, or the snapshot's.
 * @throws as `SandboxService.create` and `createFrom`; snapshot_not_found, snapshot_not_ready, invalid_argument
 */
export async function createSandbox(
  services: Services,
  caller: Caller,
  wanted: Wanted,
  defaults: LifecyclePolicy = DEFAULT_LIFECYCLE,
): Promise<SandboxOwner<Guest>> {
  const { sandboxes } = services;
  const { id: accountId } = caller.account;
  await services.rateLimits.create(accountId);
  if (wanted.snapshot_id) {
    const { id } = await snapshotOf(services, caller, wanted.snapshot_id);
    const snapshot = await sandboxes.snapshots.getReady(accountId, id);
    const { memoryMib, vcpus } = snapshot.spec.size;
    const isOther = memoryClass(wanted.memory_mb ?? memoryMib) !== memoryMib || (wanted.vcpu_count ?? vcpus) !== vcpus;
    if (isOther)
      throw new InstaVMError('invalid_argument', `the snapshot is of ${memoryMib} MB and ${vcpus} vCPUs, and stays so`);
    return sandboxes.createFrom(accountId, snapshot, specChange(caller, wanted));
  }
  return sandboxes.create({
    accountId,
    size: {
      memoryMib: memoryClass(wanted.memory_mb ?? DEFAULT_SIZE.memoryMib),
      vcpus: wanted.vcpu_count ?? DEFAULT_SIZE.vcpus,
    },
    ttlSeconds: wanted.ttlSeconds ?? DEFAULT_LIFETIME_SECONDS,
    metadata: ownMetadata(caller, wanted.metadata ?? {}),
    env: wanted.env ?? {},
    egress: wanted.egress ?? null,
    lifecycle: { ...defaults, ...lifecycleChange(wanted) },
  });
}

/** Of what is made from a snapshot. */
export function specChange(caller: Caller, wanted: Wanted): SpecChange {
  const { ttlSeconds, metadata, env, egress } = wanted;
  return {
    ...(ttlSeconds !== undefined && { ttlSeconds }),
    ...(metadata !== undefined && { metadata: ownMetadata(caller, metadata) }),
    ...(env !== undefined && { env }),
    ...(egress !== undefined && { egress }),
    lifecycle: lifecycleChange(wanted),
  };
}

/** What is left out stays. */
export function lifecycleChange(fields: LifecycleFields): Partial<LifecyclePolicy> {
  const { auto_resume, auto_suspend, snapshot_on_expiry, idle_suspend_seconds } = fields;
  return {
    ...(auto_resume != null && { autoResume: auto_resume }),
    ...(auto_suspend != null && { autoSuspend: auto_suspend }),
    ...(snapshot_on_expiry !== undefined && { snapshotOnExpiry: snapshot_on_expiry }),
    ...(idle_suspend_seconds !== undefined && { idleSuspendSeconds: idle_suspend_seconds }),
  };
}

const DEFAULT_SNAPSHOT_NAME = 'at the end of its lifetime';

/** The contract's two fields as our one: a name alone asks for the snapshot too. @param present the name that it has now */
export function snapshotOnExpiry(
  present: string | null,
  { snapshot_on_terminate: isWanted, snapshot_name: name }: ContractSnapshotFields,
): Pick<LifecycleFields, 'snapshot_on_expiry'> {
  if (isWanted === false) return { snapshot_on_expiry: null };
  if (isWanted == null && name == null) return {};
  return { snapshot_on_expiry: name ?? present ?? DEFAULT_SNAPSHOT_NAME };
}

type ContractSnapshotFields = {
  readonly snapshot_on_terminate?: boolean | null | undefined;
  readonly snapshot_name?: string | null | undefined;
};

/** @throws invalid_argument with everything that is wrong with it */
export function egressFromBody(rules: EgressRules, body: EgressPolicyBody): EgressPolicy {
  const policy = {
    allowHttp: body.allow_http,
    allowHttps: body.allow_https,
    allowPublicRepos: body.allow_public_repos,
    allowedDomains: body.allowed_domains,
    allowedCidrs: body.allowed_cidrs,
  };
  const problems = rules.problems(policy);
  if (problems.length > 0)
    throw new InstaVMError('invalid_argument', problems.join('; '), {
      details: { problems },
      hint: 'Nothing was changed. Correct the named entries of the policy.',
    });
  return policy;
}

/** The field of a request that makes a sandbox. */
export const egressWanted = (rules: EgressRules, body: EgressPolicyBody | undefined): Pick<Wanted, 'egress'> =>
  body === undefined ? {} : { egress: egressFromBody(rules, body) };

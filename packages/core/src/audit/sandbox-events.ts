/** What the audit trail says about a change of a sandbox's record. Pure: the record keeper hands it to the store together with the change. */
import type { SandboxId } from '../ids.ts';
import type { SandboxChange } from '../records.ts';
import type { EgressPolicy, SandboxRecord } from '../sandbox.ts';
import { type Actor, type NewAuditEvent, SYSTEM } from './event.ts';

/** What a sandbox is made of, for its first event. */
export type SandboxOrigin =
  | { readonly type: 'sandbox.created' }
  | { readonly type: 'sandbox.restored' | 'sandbox.cloned'; readonly sourceId: SandboxId };

export type Changed = {
  readonly before: SandboxRecord;
  readonly after: SandboxRecord;
  readonly change: SandboxChange;
  /** Set for the change with which its record is first kept. */
  readonly origin: SandboxOrigin | undefined;
  /** It runs again because it was used. */
  readonly isWoken: boolean;
  readonly actor: Actor;
  readonly at: Date;
};

type Told = Pick<NewAuditEvent, 'type' | 'status' | 'details' | 'error'>;

export function sandboxEvents({ before, after, change, origin, isWoken, actor, at }: Changed): NewAuditEvent[] {
  const { id: sandboxId, accountId, incarnationId } = after;
  const common = { accountId, sandboxId, incarnationId, resource: { type: 'sandbox', id: sandboxId }, at };
  const moved = before.state === after.state ? undefined : moveOf(before, after, isWoken);
  const told = [...(origin ? [birth(after, origin)] : changes(before, change)), ...(moved ? [moved] : [])];
  const who = moved !== undefined && isNobodys(before, after) ? SYSTEM : actor;
  return told.map((each) => ({ ...common, ...each, actor: who }));
}

function birth({ size, ttlSeconds, snapshotId, egress }: SandboxRecord, origin: SandboxOrigin): Told {
  return {
    type: origin.type,
    status: 'success',
    details: {
      memory_mb: size.memoryMib,
      vcpu_count: size.vcpus,
      ttl_seconds: ttlSeconds,
      ...('sourceId' in origin && { source_session_id: origin.sourceId, snapshot_id: snapshotId }),
      egress_policy: policyView(egress),
    },
  };
}

function changes(before: SandboxRecord, change: SandboxChange): Told[] {
  const { egress } = change;
  const isOther = (name: 'env' | 'metadata' | 'lifecycle'): boolean =>
    change[name] !== undefined && JSON.stringify(change[name]) !== JSON.stringify(before[name]);
  const fields = (['env', 'metadata', 'lifecycle'] as const).filter(isOther);
  const told: Told[] = [];
  if (egress !== undefined) {
    const details = { before: policyView(before.egress), after: policyView(egress) };
    told.push({ type: 'egress.policy_changed', status: 'success', details });
  }
  if (fields.length > 0) told.push({ type: 'sandbox.changed', status: 'success', details: { fields } });
  return told;
}

function moveOf(before: SandboxRecord, after: SandboxRecord, isWoken: boolean): Told | undefined {
  const { state: from } = before;
  const { stateReason: reason, endCause } = after;
  switch (after.state) {
    case 'running':
      if (from === 'creating') return { type: 'sandbox.started', status: 'success' };
      if (from === 'suspending') return { type: 'sandbox.suspend_failed', status: 'failure' };
      return { type: isWoken ? 'sandbox.woken' : 'sandbox.resumed', status: 'success' };
    case 'suspended':
      if (from === 'resuming') return { type: 'sandbox.resume_failed', status: 'failure' };
      return { type: 'sandbox.suspended', status: 'success', details: { reason, stored_bytes: after.savedBytes } };
    case 'failed':
      return { type: 'sandbox.failed', status: 'error', error: reason };
    case 'stopped':
      if (endCause === 'expiry') return { type: 'sandbox.expired', status: 'success', details: { reason } };
      return { type: 'sandbox.ended', status: 'success', details: { reason } };
    default:
      return undefined;
  }
}

/** What happens to a sandbox may become known while somebody's request is served. */
function isNobodys(before: SandboxRecord, { state, endCause }: SandboxRecord): boolean {
  if (state === 'failed') return before.state !== 'creating' && before.state !== 'resuming';
  return state === 'stopped' && endCause !== 'request';
}

const MOST_RULES = 20;

/** Null: the server's default. */
function policyView(policy: EgressPolicy | null) {
  if (policy === null) return null;
  return {
    allow_http: policy.allowHttp,
    allow_https: policy.allowHttps,
    allow_public_repos: policy.allowPublicRepos,
    allowed_domains: some(policy.allowedDomains),
    allowed_cidrs: some(policy.allowedCidrs),
  };
}

function some(rules: readonly string[]): readonly string[] {
  if (rules.length <= MOST_RULES) return rules;
  return [...rules.slice(0, MOST_RULES), `and ${rules.length - MOST_RULES} more`];
}

/** Audit events (contract §13.4): what was done, by whom, to what. The types are ours; a group is what stands before the dot. */
import { z } from 'zod';
import { QueryBoolean } from './common.ts';

/** Every type of event, by group, and what it says. docs/guides/audit.md lists the same set. */
export const AUDIT_CATALOG = {
  sandbox: {
    'sandbox.created': 'a sandbox was asked for, and is recorded',
    'sandbox.restored': 'the same, from a snapshot',
    'sandbox.cloned': 'the same, as a copy of another sandbox',
    'sandbox.started': 'it runs, in a fresh microVM',
    'sandbox.suspended': 'its memory and disk are saved, and its microVM is gone',
    'sandbox.suspend_failed': 'it could not be suspended, and runs on',
    'sandbox.resumed': 'it was suspended and runs again, because someone asked for that',
    'sandbox.woken': 'the same, because someone used it',
    'sandbox.resume_failed': 'it could not be resumed, and stays suspended',
    'sandbox.changed': 'its environment, metadata or life-cycle settings are others; only their names are told',
    'sandbox.failed': 'it failed; error_message says why',
    'sandbox.expired': 'its lifetime ran out, and nothing of it is left',
    'sandbox.ended': 'it was ended, and nothing of it is left',
  },
  snapshot: {
    'snapshot.created': 'a snapshot is there, or could not be made',
    'snapshot.deleted': 'it is gone',
  },
  egress: {
    'egress.policy_changed': 'what a sandbox may reach changed, with the policy of before and after',
    'egress.denied': 'a sandbox tried to reach what its policy forbids',
  },
  share: {
    'share.created': 'a port has an address',
    'share.changed': 'it was made public or private, or what Host its program sees changed',
    'share.revoked': 'its address leads nowhere',
    'share.link_created': 'a link was made that opens it without any other credential',
    'share.link_revoked': 'that link opens it no longer',
  },
  domain: {
    'domain.added': 'a custom domain was added',
    'domain.verified': 'its DNS says whose it is',
    'domain.issued': 'it has a certificate',
    'domain.failed': 'it could not be verified, or got no certificate',
    'domain.removed': 'it is gone',
  },
  key: {
    'key.created': 'an API key was made',
    'key.changed': 'its name, description or end changed',
    'key.rotated': 'it has another secret',
    'key.revoked': 'it opens nothing any more',
    'key.refused': 'a key was used that is unknown, revoked or expired',
  },
  auth: {
    'auth.signed_up': 'an account was made in the dashboard',
    'auth.signed_in': 'a browser was signed in',
    'auth.sign_in_failed': 'it was not: what was typed, or the link, was not valid',
    'auth.signed_out': 'a browser was signed out',
    'auth.password_changed': 'the password changed, and every other browser was signed out',
    'auth.link_created': 'a link was made that signs the administrator in, once',
    'auth.cli_approved': 'a command line was given a key',
    'auth.cli_refused': 'it was not',
    'auth.permission_denied': 'a key was used for what it may not do',
  },
  account: {
    'account.created': 'an account is there',
    'account.invited': 'the administrator made an invitation',
    'account.quotas_changed': 'the administrator changed what the account may have and ask for',
  },
  credit: {
    'credit.granted': 'the account was given credit',
    'credit.exhausted': 'its credit is used up, and what ran was suspended',
    'credit.refused': 'something was refused for lack of credit',
  },
  quota: {
    'quota.refused': 'something was refused because the account has as much as it may have',
    'quota.rate_limited': 'something was refused because the account asked too often',
  },
} as const;

type Catalog = typeof AUDIT_CATALOG;
export type AuditGroup = keyof Catalog;
export type AuditType = { [Group in AuditGroup]: keyof Catalog[Group] }[AuditGroup] & string;

const STATUSES = ['success', 'failure', 'error', 'denied', 'pending', 'started'] as const;
export const AuditStatus = z.enum(STATUSES);
export type AuditStatus = z.infer<typeof AuditStatus>;

/** An API key; a signed-in browser; a visitor of a preview; a sandbox itself; the server, without anyone asking; nobody who is known. */
export const AUDIT_ACTORS = ['api_key', 'user', 'visitor', 'sandbox', 'system', 'anonymous'] as const;
export const AuditActorType = z.enum(AUDIT_ACTORS);
export type AuditActorType = z.infer<typeof AuditActorType>;

const EVENT_ID = /^evt_\d{1,15}$/;

export const AuditEvent = z
  .object({
    id: z.string().describe('`evt_` and a number that grows by one with each event of the account.'),
    created_at: z.string(),
    event_group: z.string(),
    event_type: z.string(),
    status: AuditStatus,
    actor_type: AuditActorType,
    actor_id: z.string().nullable().describe('Of a key its number, of a user the account, of a sandbox its id.'),
    actor_name: z.string().nullable().describe('Of a key how it begins, of a user the e-mail address.'),
    user_id: z.string().nullable().describe('The account that the actor belongs to.'),
    resource_type: z.string().nullable(),
    resource_id: z.string().nullable(),
    session_id: z.string().nullable(),
    vm_id: z.string().nullable(),
    request_id: z.string().nullable(),
    source_ip: z.string().nullable(),
    event_payload: z.record(z.string(), z.unknown()),
    error_message: z.string().nullable(),
  })
  .meta({ id: 'AuditEvent' });
export type AuditEvent = z.infer<typeof AuditEvent>;

export const AuditEvents = z.object({ items: z.array(AuditEvent), next_cursor: z.string().nullable() });
export const AuditCatalog = z.object({ catalog: z.record(z.string(), z.array(z.string())) });

const Filter = z.string().max(100).optional();

export const AuditQuery = z.object({
  event_group: Filter,
  event_type: Filter,
  status: AuditStatus.optional(),
  user_id: Filter,
  vm_id: Filter,
  session_id: Filter,
  cursor: z.string().regex(EVENT_ID, 'is no next_cursor of an earlier answer').optional(),
  limit: z.coerce.number().int().min(1).max(200).default(50),
  follow: QueryBoolean.optional().describe('As server-sent events, oldest first, from now on or after `after`.'),
  after: z.string().regex(EVENT_ID, 'is the id of no event').optional().describe('With follow: from this event on.'),
});
export type AuditQuery = z.infer<typeof AuditQuery>;

/** Our additions beside the contract (docs/reference/api-v2.md). */
import { z } from 'zod';
import {
  Env,
  egressLists,
  GuestPath,
  LifetimeSeconds,
  MemoryMb,
  Metadata,
  noNul,
  QueryBoolean,
  QueryList,
  SignalName,
  SnapshotName,
  VcpuCount,
} from './common.ts';

/** What happens to a sandbox without anyone asking by name. */
const lifecycle = {
  auto_resume: z.boolean().optional().describe('Whether a command, a terminal or a file resumes it. Default true.'),
  auto_suspend: z.boolean().optional().describe('Suspend at the end of its lifetime instead of ending.'),
  snapshot_on_expiry: SnapshotName.nullable()
    .optional()
    .describe('Keep a snapshot of this name when its lifetime ends it.'),
  idle_suspend_seconds: z.number().int().min(1).max(86_400).nullable().optional(),
};

const egressPolicy = {
  allow_http: z.boolean().describe('Any host on port 80.'),
  allow_https: z.boolean().describe('Any host on port 443.'),
  allow_public_repos: z.boolean().describe('The package registries that the server lists.'),
  ...egressLists,
};
/** Nothing is left to a default: what is not said might be what was meant to be closed. */
export const SandboxEgressPolicy = z.strictObject(egressPolicy);
export const SandboxEgressResponse = z.object({
  ...egressPolicy,
  is_default: z.boolean().describe('Nobody sent a policy for this sandbox: it has what the server gives to all such.'),
});

/** A name, an IPv4 address, or an IPv6 address in brackets; and a port. */
const DESTINATION = /^(?:\[([0-9a-fA-F:.]{2,45})\]|([^\s:/?#@[\]]{1,253})):(\d{1,5})$/;
export const EgressTestRequest = z.strictObject({
  destination: z.string().transform((text, context) => {
    const [, address, name, port] = DESTINATION.exec(text) ?? [];
    const host = address ?? name;
    if (host === undefined || Number(port) < 1 || Number(port) > 65_535) {
      context.addIssue({ code: 'custom', message: 'must be name:port, like pypi.org:443' });
      return z.NEVER;
    }
    return { host, port: Number(port) };
  }),
});
export const EgressTestResponse = z.object({
  allowed: z.boolean(),
  rule: z.string(),
  reason: z.string().nullable(),
  addresses: z.array(z.object({ address: z.string(), allowed: z.boolean(), rule: z.string() })),
});

export const EgressLogQuery = z.strictObject({
  after: z.coerce.number().int().min(0).optional(),
  before: z.coerce.number().int().min(1).optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  verdict: z.enum(['allowed', 'denied']).optional(),
  host: noNul(253).min(1).toLowerCase().optional().describe('This name and every name below it.'),
  follow: QueryBoolean.default(false).describe('As server-sent events, from `after` or from now on.'),
});
export type EgressLogQuery = z.infer<typeof EgressLogQuery>;
export const EgressLogEntry = z
  .object({
    id: z.number().nullable().describe('Grows; null only for a connection that is just beginning.'),
    at: z.string(),
    kind: z.enum(['connect', 'lookup']),
    host: z.string(),
    port: z.number().nullable(),
    address: z.string().nullable(),
    allowed: z.boolean(),
    rule: z.string(),
    outcome: z.enum(['open', 'closed', 'denied', 'failed', 'cut']),
    reason: z.string().nullable(),
    bytes_sent: z.number(),
    bytes_received: z.number(),
    duration_ms: z.number().nullable(),
    repeated: z.number().describe('How many attempts, all alike, it stands for.'),
  })
  .meta({ id: 'EgressLogEntry' });
export const EgressLogResponse = z.object({ entries: z.array(EgressLogEntry) });

const madeAnew = {
  ttl_seconds: LifetimeSeconds.optional(),
  metadata: Metadata.optional(),
  env: Env.optional(),
  egress_policy: SandboxEgressPolicy.optional(),
};

export const CreateSandboxRequest = z
  .strictObject({
    memory_mb: MemoryMb.optional(),
    vcpu_count: VcpuCount.optional(),
    ...madeAnew,
    ...lifecycle,
    snapshot_id: z.string().optional(),
  })
  .refine((body) => body.snapshot_id === undefined || (body.memory_mb ?? body.vcpu_count) === undefined, {
    path: ['memory_mb'],
    message: 'a sandbox has the size of its snapshot',
  });

export const UpdateSandboxRequest = z.strictObject({ metadata: Metadata.optional(), ...lifecycle });

export const Sandbox = z
  .object({
    id: z.string(),
    state: z.enum(['creating', 'running', 'suspending', 'suspended', 'resuming', 'stopping', 'stopped', 'failed']),
    state_reason: z.string().nullable(),
    incarnation_id: z.string().nullable(),
    created_at: z.string(),
    expires_at: z.string().nullable(),
    memory_mb: z.number(),
    vcpu_count: z.number(),
    metadata: z.record(z.string(), z.unknown()),
    ttl_seconds: z.number(),
    lease_left_seconds: z.number().nullable().describe('While suspended: what is left of its lifetime.'),
    snapshot_id: z.string().nullable().describe('The snapshot that it was made from.'),
    auto_resume: z.boolean(),
    auto_suspend: z.boolean(),
    snapshot_on_expiry: z.string().nullable(),
    idle_suspend_seconds: z.number().nullable(),
  })
  .meta({ id: 'Sandbox' });

export const ListSandboxesQuery = z.strictObject({
  limit: z.coerce.number().int().min(1).max(1000).default(1000),
  before: z.string().optional().describe('The id of a sandbox: those that come after it in the list.'),
  ended: QueryBoolean.default(true).describe('False: without those that have ended.'),
});

export const CreateSnapshotRequest = z.strictObject({
  name: SnapshotName.optional(),
  wait: z.boolean().default(true).describe('False: answer at once, with the status `building`.'),
});
const MAX_FORKS = 32;
export const ForkRequest = z.strictObject({
  count: z.number().int().min(1).max(MAX_FORKS).default(1),
  name: SnapshotName.optional().describe('Keeps the snapshot that the forks are made from, under this name.'),
  ...madeAnew,
});
export const ForkResponse = z.object({ sandboxes: z.array(Sandbox), snapshot_id: z.string().nullable() });

export const SandboxStats = z.object({
  agent_rss_bytes: z.number(),
  memory_total_bytes: z.number(),
  memory_available_bytes: z.number(),
  disk_total_bytes: z.number(),
  disk_free_bytes: z.number(),
  processes: z.number(),
  uptime_ms: z.number(),
  cpu_time_ms: z.number(),
});

/** What a sandbox used, over the time since the sample before. */
const MetricsSample = z.object({
  at: z.string(),
  seconds: z.number().describe('Since the sample before: 10 as a rule while somebody looks, else 60.'),
  cpu: z.number().min(0).max(1).describe('Part of all its processors together.'),
  memory_used_bytes: z.number(),
  disk_used_bytes: z.number(),
  processes: z.number(),
  egress_sent_bytes: z.number(),
  egress_received_bytes: z.number(),
  preview_sent_bytes: z.number().describe('To visitors of its previews.'),
  preview_received_bytes: z.number(),
});

/** Kept in memory: a restart of the server begins anew. */
export const SandboxMetrics = z.object({
  vcpu_count: z.number(),
  memory_total_bytes: z.number().describe('0 until the sandbox was asked for the first time.'),
  disk_total_bytes: z.number(),
  samples: z.array(MetricsSample).describe('Oldest first, 360 at most.'),
});

const octalMode = z
  .string()
  .regex(/^[0-7]{3,4}$/, 'must be octal, like 0644')
  .transform((text) => Number.parseInt(text, 8));
const account = noNul(64);

const target = { user: account.optional(), within: z.array(GuestPath).max(16).optional() };
const queryTarget = {
  path: GuestPath,
  user: account.optional(),
  within: QueryList.pipe(z.array(GuestPath).max(16)).optional(),
};
const ownership = { owner: account.optional(), group: account.optional() };

/** The guest counts nanoseconds since 1970 in 64 bits. */
const FileTime = z.iso
  .datetime({ offset: true })
  .refine((text) => Date.parse(text) >= 0 && Date.parse(text) < Date.UTC(2500, 0), 'from 1970 to 2499');

export const ReadFileQuery = z.strictObject({
  ...queryTarget,
  offset: z.coerce.number().int().min(0).optional(),
  length: z.coerce.number().int().min(1).optional(),
});
export const WriteFileQuery = z.strictObject({
  ...queryTarget,
  ...ownership,
  mode: octalMode.optional(),
  parents: QueryBoolean.optional(),
  append: QueryBoolean.optional(),
  /** When it counts as modified, now when left out. */
  modified_at: FileTime.optional(),
});
export const StatQuery = z.strictObject({ ...queryTarget, follow: QueryBoolean.optional() });
export const ListQuery = z.strictObject(queryTarget);
export const WatchQuery = z.strictObject({ ...queryTarget, recursive: QueryBoolean.optional() });
export const MkdirRequest = z.strictObject({
  path: GuestPath,
  ...target,
  ...ownership,
  mode: octalMode.optional(),
  parents: z.boolean().optional(),
});
export const RemoveRequest = z.strictObject({
  path: GuestPath,
  ...target,
  recursive: z.boolean().optional(),
  force: z.boolean().optional(),
});
export const RenameRequest = z.strictObject({ from: GuestPath, to: GuestPath, ...target });
export const PackQuery = z.strictObject({
  ...queryTarget,
  exclude: QueryList.pipe(z.array(noNul(4096)).max(1000)).optional(),
});
export const UnpackQuery = z.strictObject({
  ...queryTarget,
  ...ownership,
  max_bytes: z.coerce.number().int().min(1).optional(),
  max_entries: z.coerce.number().int().min(1).optional(),
});
export const UnpackResponse = z.object({ entries: z.number(), size_bytes: z.number() });

export const FileInfo = z
  .object({
    name: z.string(),
    kind: z.enum(['file', 'dir', 'symlink', 'other']),
    size_bytes: z.number(),
    mode: z.string(),
    uid: z.number(),
    gid: z.number(),
    modified_at: z.string(),
    link_target: z.string().optional(),
    name_base64: z.string().optional(),
  })
  .meta({ id: 'FileInfo' });
export type FileInfo = z.infer<typeof FileInfo>;

/** The first frame of a streaming exec. */
export const ExecStart = z
  .strictObject({
    type: z.literal('start'),
    argv: z
      .array(noNul(128 * 1024))
      .min(1)
      .max(4096)
      .optional(),
    script: noNul(8 * 1024 * 1024).optional(),
    env: Env.optional(),
    cwd: GuestPath.optional(),
    user: account.optional(),
    stdin: z.boolean().default(false),
    timeout_ms: z.number().int().min(0).max(86_400_000).default(0),
  })
  .refine((start) => (start.argv === undefined) !== (start.script === undefined), {
    path: ['argv'],
    message: 'give exactly one of argv and script',
  });
export type ExecStart = z.infer<typeof ExecStart>;

/** Later text frames of the client. */
export const ExecControl = z.discriminatedUnion('type', [
  z.strictObject({ type: z.literal('stdin_end') }),
  z.strictObject({ type: z.literal('signal'), signal: SignalName }),
]);

/** First byte of a binary frame of the server. */
export const STDOUT_FRAME = 1;
export const STDERR_FRAME = 2;

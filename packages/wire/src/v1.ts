/** Requests and responses of the public contract, under its own names. */
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
  SignalName,
  SnapshotName,
  VcpuCount,
} from './common.ts';

/** A script, or what a cell of Python; the official client sends up to 90 kB, and nothing here needs more. */
const MAX_COMMAND_LENGTH = 4 * 1024 * 1024;
/** The kernel's limit for one argument (MAX_ARG_STRLEN) less its NUL. */
const MAX_COMMAND_ARGUMENT = 128 * 1024 - 1;

export const CreateSessionRequest = z.strictObject({
  api_key: z.string().min(1),
  vm_lifetime_seconds: LifetimeSeconds.default(300),
  memory_mb: MemoryMb.optional(),
  vcpu_count: VcpuCount.optional(),
  metadata: Metadata.optional(),
  env: Env.optional(),
});
export const CreateSessionResponse = z.object({ session_id: z.string() });

export const SessionStatus = z.object({
  session_id: z.string(),
  exists: z.boolean(),
  vm_assigned: z.boolean(),
  vm_alive: z.boolean(),
  vm_status: z.string().nullable(),
  vm_id: z.string().nullable(),
  uptime_seconds: z.number().nullable(),
  expires_in_seconds: z.number().nullable(),
  created_at: z.string().nullable(),
});

export const SessionUsage = z.object({
  session_id: z.string(),
  vcpu_count: z.number(),
  memory_mb: z.number(),
  uptime_seconds: z.number(),
  cpu_seconds: z.number().nullable(),
});

export const KillRequest = z.strictObject({ session_id: z.string() });
export const KillResponse = z.object({ success: z.boolean(), session_id: z.string() });

const execution = {
  command: noNul(MAX_COMMAND_LENGTH).optional(),
  /** The contract's other name for `command`. */
  code: noNul(MAX_COMMAND_LENGTH).optional(),
  session_id: z.string(),
  language: z.enum(['python', 'bash']).default('python'),
  timeout: z.number().int().min(1).max(86_400).optional(),
  api_key: z.string().optional(),
  vault_ids: z.array(z.string()).optional(),
};
export const ExecuteRequest = z
  .strictObject(execution)
  .refine((body) => body.command !== undefined || body.code !== undefined, {
    path: ['command'],
    message: 'is required',
  });
export type ExecuteRequest = z.infer<typeof ExecuteRequest>;

export const ExecuteResponse = z.object({
  stdout: z.string(),
  stderr: z.string(),
  exit_code: z.number().int(),
  /** Seconds. */
  execution_time: z.number(),
  cpu_time: z.number(),
  created_at: z.string(),
});

export const ExecuteAsyncResponse = z.object({ task_id: z.string() });
export const ExecutionResponse = z.object({
  task_id: z.string(),
  is_complete: z.boolean(),
  serialized_stdout: z.string().nullable(),
  serialized_stderr: z.string().nullable(),
  exit_code: z.number().nullable(),
  execution_time: z.number().nullable(),
  cpu_time: z.number().nullable(),
  created_at: z.string(),
});

/** Caller-chosen. The agent has the same rule. */
export const PtyId = z
  .string()
  .regex(/^[A-Za-z0-9._:-]{1,128}$/, 'must be 1 to 128 letters, digits, ".", "_", ":" or "-"');
const TerminalSide = z.number().int().min(1).max(65_535);
const MAX_LINGER_SECONDS = 86_400;

/** `cols`, `rows`, `id`, `shell` and `command` are the contract's; the rest is ours. At most one of `shell`, `command`, `argv`. */
export const CreatePtyRequest = z
  .strictObject({
    cols: TerminalSide.default(80),
    rows: TerminalSide.default(24),
    id: PtyId.optional(),
    /** A program, run as `<shell> -il`. */
    shell: noNul(4096).min(1).optional(),
    /** A command line, run as `/bin/bash -lc <command>`. */
    command: noNul(MAX_COMMAND_ARGUMENT).optional(),
    argv: z.array(noNul(MAX_COMMAND_ARGUMENT)).min(1).max(4096).optional(),
    env: Env.optional(),
    cwd: GuestPath.optional(),
    /** User name or number; root when left out. */
    user: noNul(64).optional(),
    /** Time without a viewer after which the terminal is ended and forgotten. 0 keeps it as long as the sandbox runs. */
    linger_seconds: z.number().int().min(0).max(MAX_LINGER_SECONDS).default(300),
  })
  .refine(({ shell, command, argv }) => [shell, command, argv].filter((one) => one !== undefined).length <= 1, {
    path: ['command'],
    message: 'give at most one of shell, command and argv',
  });
export type CreatePtyRequest = z.infer<typeof CreatePtyRequest>;

export const PtySession = z
  .object({
    session_id: z.string().describe('The id of the terminal, under the name that the contract gives it.'),
    id: z.string(),
    alive: z.boolean(),
    pid: z.number(),
    exit_code: z.number().nullable(),
    signal: z.string().nullable(),
    cols: z.number(),
    rows: z.number(),
    argv: z.array(z.string()),
    user: z.string(),
    start_offset: z.number().describe('Of the oldest byte of output that is kept.'),
    end_offset: z.number().describe('Of the next byte of output.'),
    viewers: z.number(),
    linger_seconds: z.number(),
    created_at: z.string(),
  })
  .meta({ id: 'PtySession' });
export type PtySession = z.infer<typeof PtySession>;
export const PtySessions = z.object({ sessions: z.array(PtySession) });
export const PtyDeleted = z.object({ success: z.boolean(), existed: z.boolean() });

export const ResizePtyRequest = z.strictObject({ cols: TerminalSide, rows: TerminalSide });
export const SignalPtyRequest = z.strictObject({
  signal: SignalName,
  /** To every process of the terminal's session instead of its foreground group. */
  session: z.boolean().default(false),
});
export const PtyTokenRequest = z.strictObject({ read_only: z.boolean().default(false) });
export const PtyToken = z.object({ token: z.string(), expires_at: z.string() });

/** Query of the WebSocket; `api_key` and `token` are read by authentication. */
export const AttachPtyQuery = z.object({
  offset: z.coerce.number().int().min(0).optional(),
  read_only: QueryBoolean.default(false),
  ack: QueryBoolean.default(false),
});
export type AttachPtyQuery = z.infer<typeof AttachPtyQuery>;

/** Text frames of a PTY client; whatever else comes is ignored, as the contract says. */
export const PtyControl = z.discriminatedUnion('type', [
  z.object({ type: z.literal('resize'), cols: TerminalSide, rows: TerminalSide }),
  z.object({ type: z.literal('ack'), offset: z.number().int().min(0) }),
]);

export const UploadResponse = z.object({ success: z.boolean(), remote_path: z.string(), size: z.number() });
export const DownloadRequest = z.strictObject({ filename: noNul(4096).min(1), session_id: z.string() });
export const DownloadResponse = z.object({ filename: z.string(), content: z.string().describe('base64') });

const egressPolicy = {
  allow_http: z.boolean().default(true),
  allow_https: z.boolean().default(true),
  allow_public_repos: z.boolean().default(true),
  allowed_domains: egressLists.allowed_domains.default([]),
  allowed_cidrs: egressLists.allowed_cidrs.default([]),
};
export const EgressPolicyBody = z.strictObject(egressPolicy);
export const EgressPolicyResponse = z.object({ ...egressPolicy, status: z.string() });
export type EgressPolicyBody = z.infer<typeof EgressPolicyBody>;

/** What happens to a VM without anyone asking by name; the contract's words. */
const lifecycle = {
  auto_suspend: z.boolean().nullish(),
  auto_resume: z.boolean().nullish(),
  snapshot_on_terminate: z.boolean().nullish(),
  snapshot_name: SnapshotName.nullish(),
};
const lifecycleView = {
  auto_suspend: z.boolean(),
  auto_resume: z.boolean(),
  snapshot_on_terminate: z.boolean(),
  snapshot_name: z.string().nullable(),
};

/** Unknown fields are part of the contract here: clients forward arbitrary keywords. */
export const CreateVmRequest = z.looseObject({
  session_id: z.string().optional(),
  vm_lifetime_seconds: LifetimeSeconds.optional(),
  memory_mb: MemoryMb.optional(),
  vcpu_count: VcpuCount.optional(),
  metadata: Metadata.optional(),
  env: Env.optional(),
  ...lifecycle,
  egress_policy: z.looseObject(egressPolicy).optional(),
  snapshot_id: z.string().nullish(),
  image_variant: z.string().nullish(),
  /** Not offered yet: one that is asked for and not given would be missed only inside. */
  volumes: z.array(z.unknown()).nullish(),
  vault_ids: z.array(z.unknown()).nullish(),
});
export const WaitQuery = z.object({ wait: QueryBoolean.optional() });

export const Vm = z.object({
  vm_id: z.string(),
  session_id: z.string(),
  status: z.string(),
  created_at: z.string(),
  expires_at: z.string().nullable(),
  memory_mb: z.number(),
  vcpu_count: z.number(),
  metadata: z.record(z.string(), z.unknown()),
  ssh_host: z.string().nullable(),
  snapshot_id: z.string().nullable(),
  ...lifecycleView,
});

export const UpdateVmRequest = z.looseObject({ metadata: Metadata.optional(), ...lifecycle });

export const SnapshotVmRequest = z.looseObject({ name: SnapshotName.nullish() });
export const CloneVmRequest = z.looseObject({ snapshot_name: SnapshotName.nullish() });
export const CloneVmResponse = Vm.extend({
  snapshot_id: z.string().nullable().describe('The snapshot that the clone was made from, if it was given a name.'),
  snapshot_deleted: z.boolean(),
});
export const StageEnvRequest = z.looseObject({
  entries: z
    .array(z.looseObject({ env_name: z.string(), value: z.string() }))
    .min(1)
    .max(256),
});
export const StageEnvResponse = z.object({ success: z.boolean(), staged: z.number() });

export const Snapshot = z
  .object({
    id: z.string(),
    snapshot_id: z.string().describe('The same as `id`.'),
    name: z.string(),
    status: z.enum(['building', 'ready', 'failed']),
    type: z.enum(['user', 'system']),
    snapshot_type: z.string(),
    is_public: z.boolean(),
    error: z.string().nullable(),
    last_error: z.string().nullable(),
    source_vm_id: z.string().nullable(),
    source_session_id: z.string(),
    oci_image: z.string().nullable(),
    vcpu_count: z.number(),
    memory_mb: z.number(),
    size_bytes: z.number().describe('0 until it is ready.'),
    vm_lifetime_seconds: z.number(),
    metadata: z.record(z.string(), z.unknown()),
    created_at: z.string(),
    updated_at: z.string(),
  })
  .meta({ id: 'Snapshot' });
export const SnapshotsQuery = z.looseObject({ type: z.string().optional() });

export const SandboxesQuery = z.object({
  metadata: z
    .string()
    .transform((text, context) => {
      try {
        return Metadata.parse(JSON.parse(text));
      } catch {
        context.addIssue({ code: 'custom', message: 'must be a JSON object, as metadata of a sandbox is' });
        return z.NEVER;
      }
    })
    .optional(),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
});

export const User = z.object({ id: z.string(), email: z.string(), name: z.string(), is_verified: z.boolean() });

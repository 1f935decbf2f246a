export type { Audit, AuditEvent, AuditFilter, AuditPage, AuditStatus } from './audit.ts';
export { type ClientOptions, type CreateOptions, DEFAULT_BASE_URL, InstaVM, type Sandboxes } from './client.ts';
export type { Charge, Credit, CreditBalance, CreditPeriod, Rates, Usage, UsageByDay } from './credit.ts';
export type { DomainHealth, DomainInfo, Domains } from './domains.ts';
export type { EgressGap, EgressLogEntry, EgressLogFilter, EgressLogPage, EgressPolicy, EgressTest } from './egress.ts';
export { errorFromBody, InstaVMError, type Retryable } from './errors.ts';
export type { Command, Exec, ExecOptions, ExecResult } from './exec.ts';
export type { Access, ChangeEvent, Contents, FileInfo, FileKind, Files, Ownership, WriteOptions } from './files.ts';
export type { ApiKeyInfo, ApiKeys, CreateKeyOptions, KeyScope, NewApiKey } from './keys.ts';
export type { AttachOptions, Pty, PtyExit, PtyInfo, PtyNotice, PtyOptions, Ptys } from './pty.ts';

export type { AccountQuotas, QuotaChanges, QuotaLimits, Quotas, QuotaUse } from './quotas.ts';
export {
  type RunResult,
  Sandbox,
  type SandboxInfo,
  type SandboxState,
  type SandboxStats,
} from './sandbox.ts';
export type { PreviewAuthority, SandboxShares, ShareChange, ShareInfo, ShareLink, Shares } from './shares.ts';
export type { SnapshotInfo, Snapshots } from './snapshots.ts';

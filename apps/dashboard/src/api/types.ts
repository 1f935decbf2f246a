/** What the server answers, from the very schemas that it validates with. */
import type * as wire from '@instavm/wire';
import type { z } from 'zod';

export type Account = z.output<typeof wire.SignedInAccount>;
export type SignInState = z.output<typeof wire.SignInState>;
export type Sandbox = z.output<typeof wire.Sandbox>;
export type SandboxState = Sandbox['state'];
export type CreateSandbox = z.input<typeof wire.CreateSandboxRequest>;
export type Stats = z.output<typeof wire.SandboxStats>;
export type Metrics = z.output<typeof wire.SandboxMetrics>;
export type AuditEvent = z.output<typeof wire.AuditEvent>;
export type AuditEvents = z.output<typeof wire.AuditEvents>;
export type Pty = z.output<typeof wire.PtySession>;
export type FileInfo = z.output<typeof wire.FileInfo>;
export type EgressPolicy = z.output<typeof wire.SandboxEgressPolicy>;
export type EgressPolicyInForce = z.output<typeof wire.SandboxEgressResponse>;
export type EgressEntry = z.output<typeof wire.EgressLogEntry>;
export type EgressVerdict = z.output<typeof wire.EgressTestResponse>;
export type Share = z.output<typeof wire.Share>;
export type Snapshot = z.output<typeof wire.Snapshot>;
export type CliPairing = z.output<typeof wire.CliPairing>;
export type ApiKey = z.output<typeof wire.ApiKey>;
export type NewKey = z.output<typeof wire.NewApiKey>;
export type CreateKey = z.input<typeof wire.CreateKeyRequest>;
export type CreditSummary = z.output<typeof wire.CreditSummary>;
export type Forecast = z.output<typeof wire.CreditForecast>;
export type Quotas = z.output<typeof wire.AccountQuotas>;
export type Breakdown = z.output<typeof wire.UsageBreakdown>;

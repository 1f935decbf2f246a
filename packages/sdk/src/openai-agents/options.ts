/** What a sandbox is made with: constructor defaults under per-run options. */
import { normalizeExposedPort, SandboxConfigurationError } from '@openai/agents-core/sandbox';
import type { EgressPolicy } from '../egress.ts';

export type InstaVMSandboxClientOptions = {
  /** Default: `INSTAVM_API_KEY`. */
  apiKey?: string;
  /** Default: `INSTAVM_BASE_URL`. */
  baseUrl?: string;
  memoryMb?: number;
  cpuCount?: 1 | 2 | 4 | 6 | 8;
  /** Lifetime of the sandbox in seconds; default 3600. */
  timeout?: number;
  /** Under the manifest's own environment. */
  env?: Record<string, string>;
  metadata?: Record<string, unknown>;
  /** The sandbox begins there. */
  snapshotId?: string;
  /** A snapshot is taken when the lifetime ends, under `snapshotName` when that is given. */
  snapshotOnTerminate?: boolean;
  snapshotName?: string;
  /** The only ports that `resolveExposedPort` takes; any port when it is empty or left out. */
  exposedPorts?: number[];
  /** False: a resolved port is opened by its `query` only, a token that ends with the lifetime. True when left out. */
  exposedPortsPublic?: boolean;
  /** False: no way out but the listed domains and address ranges. The six about the network are true, and the lists empty, when left out. */
  allowInternetAccess?: boolean;
  allowHttp?: boolean;
  allowHttps?: boolean;
  allowPackageManagers?: boolean;
  allowedDomains?: string[];
  allowedCidrs?: string[];
};

const KNOWN: Readonly<Record<keyof InstaVMSandboxClientOptions, true>> = {
  apiKey: true,
  baseUrl: true,
  memoryMb: true,
  cpuCount: true,
  timeout: true,
  env: true,
  metadata: true,
  snapshotId: true,
  snapshotOnTerminate: true,
  snapshotName: true,
  exposedPorts: true,
  exposedPortsPublic: true,
  allowInternetAccess: true,
  allowHttp: true,
  allowHttps: true,
  allowPackageManagers: true,
  allowedDomains: true,
  allowedCidrs: true,
};

/** An agent thinks between its commands; the daemon's own default would end its sandbox under it. */
export const DEFAULT_LIFETIME_SECONDS = 3600;

/** @throws SandboxConfigurationError that names an option which does not exist; UserError for a port that cannot be */
export function mergeOptions(
  defaults: InstaVMSandboxClientOptions,
  options: InstaVMSandboxClientOptions | undefined,
): InstaVMSandboxClientOptions {
  const given = Object.entries(options ?? {}).filter(([, value]) => value !== undefined && value !== null);
  const merged = { ...defaults, ...Object.fromEntries(given) } as InstaVMSandboxClientOptions;
  for (const name of Object.keys(merged)) {
    if (!Object.hasOwn(KNOWN, name)) throw new SandboxConfigurationError(`InstaVMSandboxClient has no option ${name}`);
  }
  for (const port of merged.exposedPorts ?? []) normalizeExposedPort(port);
  return merged;
}

const EGRESS_OPTIONS = [
  'allowInternetAccess',
  'allowHttp',
  'allowHttps',
  'allowPackageManagers',
  'allowedDomains',
  'allowedCidrs',
] as const;
type EgressOptions = Pick<InstaVMSandboxClientOptions, (typeof EGRESS_OPTIONS)[number]>;

/** Whether any of them is about the network. */
export const hasEgressOptions = (options: EgressOptions | undefined): boolean =>
  EGRESS_OPTIONS.some((name) => options?.[name] !== undefined);

/** The policy that the options ask for, all of them together. */
export function egressPolicy(options: EgressOptions): EgressPolicy {
  const { allowHttp = true, allowHttps = true, allowPackageManagers = true } = options;
  const { allowInternetAccess = true, allowedDomains = [], allowedCidrs = [] } = options;
  return {
    allowHttp: allowInternetAccess && allowHttp,
    allowHttps: allowInternetAccess && allowHttps,
    allowPackageManagers: allowInternetAccess && allowPackageManagers,
    allowedDomains,
    allowedCidrs,
  };
}

/** The options that ask for a policy. */
export const egressOptions = (policy: EgressPolicy): Required<EgressOptions> => ({
  allowInternetAccess: true,
  allowHttp: policy.allowHttp,
  allowHttps: policy.allowHttps,
  allowPackageManagers: policy.allowPackageManagers,
  allowedDomains: [...policy.allowedDomains],
  allowedCidrs: [...policy.allowedCidrs],
});

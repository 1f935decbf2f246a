/** The egress gateway as the daemon's configuration wants it, and what the routes ask about policies. */
import { isIPv6 } from 'node:net';
import type { EgressPolicy, LifecycleLog } from '@instavm/core';
import {
  findPolicyProblems,
  Gateway,
  type GatewayOptions,
  PUBLIC_REGISTRIES,
  parseAuthority,
  Resolver,
} from '@instavm/egress';
import { InstaVMError } from '@instavm/wire';
import type { Config } from './config.ts';

export type EgressExplanation = {
  readonly allowed: boolean;
  readonly rule: string;
  /** A sentence, when it is not allowed. */
  readonly reason: string | null;
  /** What the name stands for now, each with its own verdict. */
  readonly addresses: readonly { readonly address: string; readonly allowed: boolean; readonly rule: string }[];
};

export type EgressRules = {
  /** What a sandbox gets for which nobody sent a policy. */
  readonly defaultPolicy: EgressPolicy;
  /** Sentences; none for a policy that can be applied. */
  problems(policy: EgressPolicy): string[];
  /** Says what would happen, without connecting. @param host a name, or an address without brackets. @throws invalid_argument */
  explain(
    policy: EgressPolicy,
    destination: { readonly host: string; readonly port: number },
  ): Promise<EgressExplanation>;
};

const BITS_PER_BYTE = 8;
const NOTHING: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: false,
  allowedDomains: [],
  allowedCidrs: [],
};

const DEFAULTS: Readonly<Record<Config['INSTAVM_EGRESS_DEFAULT'], EgressPolicy>> = {
  deny: NOTHING,
  packages: { ...NOTHING, allowPublicRepos: true },
  open: { ...NOTHING, allowHttp: true, allowHttps: true, allowPublicRepos: true },
};

/** @param on.record called for every connection and denial of every sandbox, `sent` and `received` for the bytes that they do */
export const createGateway = (
  config: Config,
  on: Pick<GatewayOptions, 'record' | 'sent' | 'received'>,
  log: LifecycleLog,
): Gateway => new Gateway({ ...gatewayOptions(config), ...on, log });

const gatewayOptions = (config: Config): Omit<GatewayOptions, 'record' | 'sent' | 'received' | 'log'> => ({
  defaultPolicy: DEFAULTS[config.INSTAVM_EGRESS_DEFAULT],
  registries: config.INSTAVM_EGRESS_REGISTRIES ?? PUBLIC_REGISTRIES,
  siteCidrs: config.INSTAVM_EGRESS_SITE_CIDRS,
  forbiddenCidrs: config.INSTAVM_EGRESS_FORBIDDEN_CIDRS,
  resolver: new Resolver(config.INSTAVM_EGRESS_DNS),
  proxy: config.INSTAVM_EGRESS_PROXY,
  maxConnections: config.INSTAVM_EGRESS_CONNECTIONS,
  bytesPerSecond: config.INSTAVM_EGRESS_MBIT === 0 ? Infinity : (config.INSTAVM_EGRESS_MBIT * 1e6) / BITS_PER_BYTE,
});

export const egressRules = (gateway: Gateway): EgressRules => ({
  defaultPolicy: gateway.defaultPolicy,
  problems: findPolicyProblems,
  explain: async (policy, { host, port }) => {
    const destination = parseAuthority(`${isIPv6(host) ? `[${host}]` : host}:${port}`);
    if (destination === undefined)
      throw new InstaVMError('invalid_argument', `destination: ${host} is neither a host name nor an address`);
    const { verdict, addresses } = await gateway.explain(policy, destination);
    return {
      allowed: verdict.allowed,
      rule: verdict.rule,
      reason: verdict.allowed ? null : verdict.reason,
      addresses: addresses.map((each) => ({
        address: each.address,
        allowed: each.verdict.allowed,
        rule: each.verdict.rule,
      })),
    };
  },
});

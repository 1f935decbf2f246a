/** What the routes ask about policies, by name alone: which are refused, and what one would say about a destination. */
import { BlockList, isIP } from 'node:net';
import type { EgressPolicy } from '@instavm/core';

export type EgressDestination = { readonly host: string; readonly port: number };

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
  /** Says what would happen, without connecting. */
  explain(policy: EgressPolicy, destination: EgressDestination): Promise<EgressExplanation>;
};

const REGISTRIES_ONLY: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: true,
  allowedDomains: [],
  allowedCidrs: [],
};
const NAME = /^(\*\.)?([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.?(:\d{1,5})?$/i;

export const egressRules = (): EgressRules => ({
  defaultPolicy: REGISTRIES_ONLY,
  problems: ({ allowedDomains, allowedCidrs }) => [
    ...allowedDomains.filter((name) => !NAME.test(name)).map((name) => `allowed_domains: "${name}" is no host name`),
    ...allowedCidrs.filter((text) => blockOf(text) === undefined).map((text) => `allowed_cidrs: "${text}" is no range`),
  ],
  explain: async (policy, { host, port }) => {
    const rule = ruleFor(policy, host.toLowerCase(), port);
    const allowed = rule !== 'default_deny';
    const addresses = isIP(host) === 0 ? [] : [{ address: host, allowed, rule }];
    return { allowed, rule, reason: allowed ? null : `no rule allows ${host} on port ${port}`, addresses };
  },
});

function ruleFor(policy: EgressPolicy, host: string, port: number): string {
  const family = isIP(host);
  const cidr = policy.allowedCidrs.find((text) => blockOf(text)?.check(host, family === 6 ? 'ipv6' : 'ipv4'));
  if (family !== 0 && cidr !== undefined) return `allowed_cidrs:${cidr}`;
  const domain = policy.allowedDomains.find((name) =>
    name.startsWith('*.') ? host.endsWith(name.slice(1).toLowerCase()) : host === name.toLowerCase(),
  );
  if (domain !== undefined) return `allowed_domains:${domain}`;
  if (policy.allowHttp && port === 80) return 'allow_http';
  if (policy.allowHttps && port === 443) return 'allow_https';
  return 'default_deny';
}

function blockOf(text: string): BlockList | undefined {
  const [, address = '', prefix] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? [];
  const family = isIP(address);
  const most = family === 6 ? 128 : 32;
  if (family === 0 || Number(prefix ?? most) > most) return undefined;
  const block = new BlockList();
  block.addSubnet(address, Number(prefix ?? most), family === 6 ? 'ipv6' : 'ipv4');
  return block;
}

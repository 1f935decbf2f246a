/**
 * The decision: may a sandbox with this policy reach that destination, and which rule says so. Pure; the gateway resolves, dials and checks bytes.
 * Rules only allow, so their order decides which one is named and nothing else. Semantics: docs/reference/egress-policy.md.
 */
import type { EgressPolicy } from '@instavm/core';
import { type Address, parseAddress, specialRange } from './addresses.ts';
import { CidrSet } from './cidrs.ts';
import { type DomainRule, DomainSet, parseDomainRule } from './domains.ts';
import { MAX_RULE_CHARS, MAX_RULES } from './problems.ts';
import { REGISTRY_PORTS } from './registries.ts';
import type { Verdict } from './verdict.ts';

/** What may be asked of the DNS about a name: nothing, its addresses, or every record type. */
export type LookupScope = 'none' | 'addresses' | 'all';

/** Of a name before it is resolved. `by-address`: no rule has the name, but one may have its address. */
export type NameVerdict = Verdict | { readonly allowed: 'by-address'; readonly name: string };

/** Names are in the form of `normalizeName`. */
export type CompiledPolicy = {
  /** `none` when no rule could allow the name on any port: then nobody is asked, or its labels would carry data out. */
  lookup(name: string): LookupScope;
  decideName(name: string, port: number): NameVerdict;
  /**
   * The last word, about the very address that is dialled.
   * @param byName what `decideName` said; undefined when the program gave an address itself
   */
  decideAddress(address: string, port: number, byName: NameVerdict | undefined): Verdict;
  /** Whether Host or SNI must agree with the name, because the name is the reason that `verdict` allows it. */
  mustAgree(name: string, port: number, verdict: Verdict): boolean;
};

const DOMAIN_RULE = 'allowed_domains:';
const REGISTRY_RULE = 'allow_public_repos:';
const CIDR_RULE = 'allowed_cidrs:';
const HTTP_PORT = 80;
const HTTPS_PORT = 443;

/**
 * @param policy entries that `findPolicyProblems` objects to allow nothing
 * @param registries domain rules of `allow_public_repos`; those without a port mean 80 and 443
 * @param site addresses that are the site's own and count as public, special as they may be
 */
export function compilePolicy(
  policy: EgressPolicy,
  registries: readonly string[],
  site: CidrSet = new CidrSet([]),
): CompiledPolicy {
  const domains = new DomainSet(domainRules(policy.allowedDomains));
  const registrySet = new DomainSet(domainRules(registries), REGISTRY_PORTS);
  const cidrs = CidrSet.of(usable(policy.allowedCidrs));

  /** The flag that lets any host on this port, when it is on. */
  const anyHostRule = (port: number): string | undefined =>
    port === HTTPS_PORT && policy.allowHttps
      ? 'allow_https'
      : port === HTTP_PORT && policy.allowHttp
        ? 'allow_http'
        : undefined;

  const ruleForName = (name: string, port: number): string | undefined => {
    const domain = domains.match(name, port);
    if (domain !== undefined) return DOMAIN_RULE + domain;
    const registry = policy.allowPublicRepos ? registrySet.match(name, port) : undefined;
    return registry !== undefined ? REGISTRY_RULE + registry : anyHostRule(port);
  };

  /** What a denial suggests; only what is off yet would have allowed it. */
  const switches = (port: number, name?: string): string[] => [
    ...(port === HTTPS_PORT ? ['set allow_https'] : []),
    ...(port === HTTP_PORT ? ['set allow_http'] : []),
    ...(name !== undefined && registrySet.match(name, port) !== undefined ? ['set allow_public_repos'] : []),
  ];
  const nameRemedies = (name: string, port: number): string[] => [
    `add ${name} or ${name}:${port} to allowed_domains`,
    ...switches(port, name),
  ];

  return {
    lookup: (name) => {
      if (policy.allowHttp || policy.allowHttps || domains.covers(name)) return 'all';
      if (policy.allowPublicRepos && registrySet.covers(name)) return 'all';
      return cidrs.size > 0 ? 'addresses' : 'none';
    },

    decideName: (name, port) => {
      const rule = ruleForName(name, port);
      if (rule !== undefined) return { allowed: true, rule };
      if (cidrs.size > 0) return { allowed: 'by-address', name };
      return denied(`no rule allows ${name} on port ${port}`, nameRemedies(name, port));
    },

    decideAddress: (address, port, byName) => {
      const parsed = parseAddress(address);
      const cidr = parsed && cidrs.match(parsed);
      if (cidr !== undefined) return { allowed: true, rule: CIDR_RULE + cidr };
      const special =
        parsed !== undefined && site.match(parsed) !== undefined ? undefined : deniedAsSpecial(address, parsed);
      if (special) return special;
      const inCidrs = `add ${address} to allowed_cidrs`;
      if (byName === undefined) {
        const rule = anyHostRule(port);
        if (rule !== undefined) return { allowed: true, rule };
        return denied(`no rule allows ${address} on port ${port}`, [inCidrs, ...switches(port)]);
      }
      if (byName.allowed !== 'by-address') return byName;
      const { name } = byName;
      return denied(`no rule allows ${name} (${address}) on port ${port}`, [...nameRemedies(name, port), inCidrs]);
    },

    mustAgree: (name, port, verdict) =>
      verdict.allowed &&
      (port === HTTP_PORT || port === HTTPS_PORT) &&
      anyHostRule(port) === undefined &&
      (verdict.rule.startsWith(DOMAIN_RULE) || verdict.rule.startsWith(REGISTRY_RULE)) &&
      parseAddress(name) === undefined,
  };
}

const usable = (entries: readonly string[]): readonly string[] =>
  entries.slice(0, MAX_RULES).filter((entry) => entry.length <= MAX_RULE_CHARS);

const domainRules = (entries: readonly string[]): DomainRule[] =>
  usable(entries).flatMap((entry) => {
    const parsed = parseDomainRule(entry);
    return 'rule' in parsed ? [parsed.rule] : [];
  });

const denied = (what: string, remedies: readonly string[]): Verdict => ({
  allowed: false,
  rule: 'default_deny',
  reason: `${what}: ${remedies.join(', or ')}`,
});

function deniedAsSpecial(address: string, parsed: Address | undefined): Verdict | undefined {
  if (!parsed) {
    return {
      allowed: false,
      rule: 'special_address:invalid',
      reason: 'the destination is no address: use a host name or an IP address',
    };
  }
  const range = specialRange(parsed);
  if (range === undefined) return undefined;
  const reason = `${address} is not a public address (${range}): only allowed_cidrs can allow it, so add ${address} there`;
  return { allowed: false, rule: `special_address:${range}`, reason };
}

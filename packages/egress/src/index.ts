export { addressText, parseAddress, SPECIAL_RANGES, specialRange } from './policy/addresses.ts';
export { type CidrRule, CidrSet, parseCidrRule } from './policy/cidrs.ts';
export { type DomainRule, DomainSet, type ParsedDomainRule, parseDomainRule } from './policy/domains.ts';
export { normalizeName, parseAuthority, parsePort } from './policy/names.ts';
export { type CompiledPolicy, compilePolicy, type LookupScope, type NameVerdict } from './policy/policy.ts';
export { findPolicyProblems, MAX_RULE_CHARS, MAX_RULES } from './policy/problems.ts';
export { PUBLIC_REGISTRIES, REGISTRY_GROUPS, REGISTRY_PORTS, type RegistryGroup } from './policy/registries.ts';
export type { Destination, RuleId, Verdict } from './policy/verdict.ts';

/** What is wrong with a policy, in sentences for whoever sent it. */
import type { EgressPolicy } from '@instavm/core';
import { parseCidrRule } from './cidrs.ts';
import { parseDomainRule } from './domains.ts';

/** Of domains, and of CIDRs. */
export const MAX_RULES = 10_000;
/** A name is 253, and `*.` and a port come on top only of shorter ones. */
export const MAX_RULE_CHARS = 255;
/** Problems that are told one by one. */
const MAX_PROBLEMS = 20;
const MAX_QUOTED_CHARS = 80;

/** @returns nothing when every entry means something; entries that do not, `compilePolicy` leaves out */
export function findPolicyProblems(policy: EgressPolicy): string[] {
  const problems = [
    ...problemsOf('allowed_domains', policy.allowedDomains, domainProblem),
    ...problemsOf('allowed_cidrs', policy.allowedCidrs, cidrProblem),
  ];
  const more = problems.length - MAX_PROBLEMS;
  return more > 0 ? [...problems.slice(0, MAX_PROBLEMS), `and ${more} more entries are wrong`] : problems;
}

function problemsOf(
  field: string,
  entries: readonly string[],
  problemOf: (entry: string) => string | undefined,
): string[] {
  if (entries.length > MAX_RULES) return [`${field} has ${entries.length} entries; at most ${MAX_RULES} are allowed`];
  return entries.flatMap((entry, index) => {
    const problem = entry.length > MAX_RULE_CHARS ? `is longer than ${MAX_RULE_CHARS} characters` : problemOf(entry);
    return problem === undefined ? [] : [`${field}[${index}] ${quoted(entry)} ${problem}`];
  });
}

function domainProblem(entry: string): string | undefined {
  const parsed = parseDomainRule(entry);
  return 'problem' in parsed ? parsed.problem : undefined;
}

const cidrProblem = (entry: string): string | undefined =>
  parseCidrRule(entry)
    ? undefined
    : 'is no address range; write 10.0.0.0/8, 2001:db8::/32 or one address, without a port';

const quoted = (entry: string): string =>
  JSON.stringify(entry.length > MAX_QUOTED_CHARS ? `${entry.slice(0, MAX_QUOTED_CHARS)}…` : entry);

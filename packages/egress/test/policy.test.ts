/** The decision: tables of policies and destinations, a slow model beside it, and what must hold for every policy. */
import type { EgressPolicy } from '@instavm/core';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  type CidrRule,
  CidrSet,
  type CompiledPolicy,
  compilePolicy,
  findPolicyProblems,
  MAX_RULES,
  parseAuthority,
  parseCidrRule,
  specialRange,
  type Verdict,
} from '../src/index.ts';

const NOTHING: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: false,
  allowedDomains: [],
  allowedCidrs: [],
};
const PUBLIC = '93.184.216.34';

/** As the gateway goes about it, with the address that the name has. */
function decide(policy: CompiledPolicy, authority: string, resolved = PUBLIC): Verdict {
  const destination = parseAuthority(authority);
  if (!destination) throw new Error(`${authority} is no authority`);
  const { host, port, isAddress } = destination;
  if (isAddress) return policy.decideAddress(host, port, undefined);
  const byName = policy.decideName(host, port);
  return byName.allowed === false ? byName : policy.decideAddress(resolved, port, byName);
}

const REGISTRIES = ['pypi.org', '*.archive.example', 'mirror.example:8081'];
const PACKAGES = { ...NOTHING, allowPublicRepos: true };
const NAMES = { ...NOTHING, allowedDomains: ['example.com', '*.wild.example', 'git.example:22', 'bücher.de'] };
const RANGES = { ...NOTHING, allowedCidrs: ['10.0.0.0/8', '93.184.0.0/16', '2606:4700::/32'] };
const HTTPS = { ...NOTHING, allowHttps: true };
const HTTP = { ...NOTHING, allowHttp: true };

describe('a destination', () => {
  const rows: readonly (readonly [
    title: string,
    policy: EgressPolicy,
    authority: string,
    resolved: string,
    rule: string,
    allowed: boolean,
  ])[] = [
    ['nothing', NOTHING, 'example.com:443', PUBLIC, 'default_deny', false],
    ['nothing', NOTHING, '1.1.1.1:443', PUBLIC, 'default_deny', false],
    ['nothing', NOTHING, '[2606:4700::1]:53', PUBLIC, 'default_deny', false],
    ['nothing', NOTHING, '127.0.0.1:80', PUBLIC, 'special_address:loopback', false],
    ['https', HTTPS, 'example.com:443', PUBLIC, 'allow_https', true],
    ['https', HTTPS, 'example.com:80', PUBLIC, 'default_deny', false],
    ['https', HTTPS, 'example.com:8443', PUBLIC, 'default_deny', false],
    ['https', HTTPS, '1.1.1.1:443', PUBLIC, 'allow_https', true],
    ['https', HTTPS, '1.1.1.1:80', PUBLIC, 'default_deny', false],
    ['https', HTTPS, 'example.com:443', '10.0.0.1', 'special_address:private', false],
    ['https', HTTPS, 'example.com:443', '169.254.169.254', 'special_address:metadata', false],
    ['https', HTTPS, 'example.com:443', '::1', 'special_address:loopback', false],
    ['https', HTTPS, 'example.com:443', '::ffff:127.0.0.1', 'special_address:ipv4_mapped', false],
    ['https', HTTPS, 'example.com:443', '64:ff9b::7f00:1', 'special_address:nat64', false],
    ['https', HTTPS, 'example.com:443', 'no address', 'special_address:invalid', false],
    ['https', HTTPS, '169.254.169.254:443', PUBLIC, 'special_address:metadata', false],
    ['https', HTTPS, '[::ffff:10.0.0.1]:443', PUBLIC, 'special_address:ipv4_mapped', false],
    ['http', HTTP, 'example.com:80', PUBLIC, 'allow_http', true],
    ['http', HTTP, 'example.com:443', PUBLIC, 'default_deny', false],
    ['http', HTTP, '169.254.169.254:80', PUBLIC, 'special_address:metadata', false],
    ['packages', PACKAGES, 'pypi.org:443', PUBLIC, 'allow_public_repos:pypi.org', true],
    ['packages', PACKAGES, 'pypi.org:80', PUBLIC, 'allow_public_repos:pypi.org', true],
    ['packages', PACKAGES, 'pypi.org:22', PUBLIC, 'default_deny', false],
    ['packages', PACKAGES, 'evil.pypi.org:443', PUBLIC, 'default_deny', false],
    ['packages', PACKAGES, 'us.archive.example:80', PUBLIC, 'allow_public_repos:*.archive.example', true],
    ['packages', PACKAGES, 'mirror.example:8081', PUBLIC, 'allow_public_repos:mirror.example:8081', true],
    ['packages', PACKAGES, 'mirror.example:443', PUBLIC, 'default_deny', false],
    ['packages', PACKAGES, 'pypi.org:443', '127.0.0.1', 'special_address:loopback', false],
    ['packages off', NOTHING, 'pypi.org:443', PUBLIC, 'default_deny', false],
    ['names', NAMES, 'example.com:443', PUBLIC, 'allowed_domains:example.com', true],
    ['names', NAMES, 'EXAMPLE.com.:5432', PUBLIC, 'allowed_domains:example.com', true],
    ['names', NAMES, 'www.example.com:443', PUBLIC, 'default_deny', false],
    ['names', NAMES, 'a.b.wild.example:22', PUBLIC, 'allowed_domains:*.wild.example', true],
    ['names', NAMES, 'wild.example:443', PUBLIC, 'default_deny', false],
    ['names', NAMES, 'git.example:22', PUBLIC, 'allowed_domains:git.example:22', true],
    ['names', NAMES, 'git.example:443', PUBLIC, 'default_deny', false],
    ['names', NAMES, 'bücher.de:443', PUBLIC, 'allowed_domains:xn--bcher-kva.de', true],
    ['names', NAMES, 'xn--bcher-kva.de:443', PUBLIC, 'allowed_domains:xn--bcher-kva.de', true],
    ['names', NAMES, 'example.com:443', '192.168.0.1', 'special_address:private', false],
    ['names', NAMES, `${PUBLIC}:443`, PUBLIC, 'default_deny', false],
    ['ranges', RANGES, '10.1.2.3:22', PUBLIC, 'allowed_cidrs:10.0.0.0/8', true],
    ['ranges', RANGES, '[::ffff:10.1.2.3]:22', PUBLIC, 'allowed_cidrs:10.0.0.0/8', true],
    ['ranges', RANGES, '11.1.2.3:22', PUBLIC, 'default_deny', false],
    ['ranges', RANGES, '192.168.0.1:22', PUBLIC, 'special_address:private', false],
    ['ranges', RANGES, 'anything.example:22', PUBLIC, 'allowed_cidrs:93.184.0.0/16', true],
    ['ranges', RANGES, 'anything.example:22', '10.0.0.9', 'allowed_cidrs:10.0.0.0/8', true],
    ['ranges', RANGES, 'anything.example:22', '8.8.8.8', 'default_deny', false],
    ['ranges', RANGES, 'anything.example:22', '127.0.0.1', 'special_address:loopback', false],
    ['ranges', RANGES, 'anything.example:22', '2606:4700::1', 'allowed_cidrs:2606:4700::/32', true],
    [
      'all',
      { ...NAMES, ...PACKAGES, allowedDomains: ['pypi.org'], allowHttps: true },
      'pypi.org:443',
      PUBLIC,
      'allowed_domains:pypi.org',
      true,
    ],
    [
      'packages before flags',
      { ...PACKAGES, allowHttps: true },
      'pypi.org:443',
      PUBLIC,
      'allow_public_repos:pypi.org',
      true,
    ],
    [
      'names and ranges',
      { ...NAMES, allowedCidrs: ['10.0.0.0/8'] },
      'example.com:443',
      '10.0.0.1',
      'allowed_cidrs:10.0.0.0/8',
      true,
    ],
    [
      'names and ranges',
      { ...NAMES, allowedCidrs: ['10.0.0.0/8'] },
      'example.com:443',
      PUBLIC,
      'allowed_domains:example.com',
      true,
    ],
    [
      'wrong entries',
      { ...NOTHING, allowedDomains: ['*', '.example.com', '1.1.1.1'], allowedCidrs: ['any', '::/129'] },
      'www.example.com:443',
      PUBLIC,
      'default_deny',
      false,
    ],
  ];
  test.each(rows)('under "%s" (%o) %s at %s: %s, %s', (_title, policy, authority, resolved, rule, allowed) => {
    expect(findPolicyProblems(policy).length > 0).toBe(_title === 'wrong entries');
    expect(decide(compilePolicy(policy, REGISTRIES), authority, resolved)).toMatchObject({ rule, allowed });
  });
});

describe('a denial tells what would allow', () => {
  test.each([
    [
      NOTHING,
      'example.com:22',
      PUBLIC,
      'no rule allows example.com on port 22: add example.com or example.com:22 to allowed_domains',
    ],
    [
      NOTHING,
      'example.com:443',
      PUBLIC,
      'no rule allows example.com on port 443: add example.com or example.com:443 to allowed_domains, or set allow_https',
    ],
    [
      NOTHING,
      'pypi.org:80',
      PUBLIC,
      'no rule allows pypi.org on port 80: add pypi.org or pypi.org:80 to allowed_domains, or set allow_http, or set allow_public_repos',
    ],
    [NOTHING, '1.1.1.1:53', PUBLIC, 'no rule allows 1.1.1.1 on port 53: add 1.1.1.1 to allowed_cidrs'],
    [
      NOTHING,
      '1.1.1.1:80',
      PUBLIC,
      'no rule allows 1.1.1.1 on port 80: add 1.1.1.1 to allowed_cidrs, or set allow_http',
    ],
    [
      RANGES,
      'a.example:22',
      '8.8.8.8',
      'no rule allows a.example (8.8.8.8) on port 22: add a.example or a.example:22 to allowed_domains, or add 8.8.8.8 to allowed_cidrs',
    ],
    [
      HTTPS,
      'a.example:443',
      '10.0.0.1',
      '10.0.0.1 is not a public address (private): only allowed_cidrs can allow it, so add 10.0.0.1 there',
    ],
  ])('%o %s', (policy, authority, resolved, reason) => {
    expect(decide(compilePolicy(policy, REGISTRIES), authority, resolved)).toMatchObject({ allowed: false, reason });
  });
});

describe('of the DNS may be asked', () => {
  test.each([
    [NOTHING, 'example.com', 'none'],
    [PACKAGES, 'pypi.org', 'all'],
    [PACKAGES, 'mirror.example', 'all'],
    [PACKAGES, 'data.evil.example', 'none'],
    [PACKAGES, '_http._tcp.pypi.org', 'none'],
    [NAMES, 'example.com', 'all'],
    [NAMES, 'git.example', 'all'],
    [NAMES, 'x.wild.example', 'all'],
    [NAMES, 'wild.example', 'none'],
    [NAMES, 'data.example.com', 'none'],
    [RANGES, 'example.com', 'addresses'],
    [{ ...NAMES, allowedCidrs: ['10.0.0.0/8'] }, 'example.com', 'all'],
    [HTTP, 'example.com', 'all'],
    [HTTPS, 'example.com', 'all'],
    [{ ...NOTHING, allowedCidrs: ['nonsense'] }, 'example.com', 'none'],
  ] as const)('under %o about %s: %s', (policy, name, scope) => {
    expect(compilePolicy(policy, REGISTRIES).lookup(name)).toBe(scope);
  });
});

describe('Host and SNI must agree', () => {
  const both = { ...NAMES, allowPublicRepos: true };
  test.each([
    [both, 'example.com:443', true],
    [both, 'example.com:80', true],
    [both, 'pypi.org:443', true],
    [both, 'example.com:5432', false],
    [both, 'git.example:22', false],
    [{ ...both, allowHttps: true }, 'example.com:443', false],
    [{ ...both, allowHttps: true }, 'example.com:80', true],
    [{ ...both, allowHttp: true }, 'pypi.org:80', false],
    [HTTPS, 'example.com:443', false],
    [RANGES, 'example.com:443', false],
    [RANGES, '93.184.216.34:443', false],
    [NOTHING, 'example.com:443', false],
  ])('under %o with %s: %s', (given, authority, expected) => {
    const policy = compilePolicy(given, REGISTRIES);
    const destination = parseAuthority(authority);
    expect(policy.mustAgree(destination?.host ?? '', destination?.port ?? 0, decide(policy, authority))).toBe(expected);
  });
});

describe('a policy is refused', () => {
  test('with a sentence for each wrong entry', () => {
    const problems = findPolicyProblems({
      ...NOTHING,
      allowedDomains: ['example.com', '*', 'https://example.com/', 'x'.repeat(256)],
      allowedCidrs: ['10.0.0.0/8', '10.0.0.0/8:80'],
    });
    expect(problems).toEqual([
      'allowed_domains[1] "*" would be every host; use allow_https or allow_http, or a range in allowed_cidrs',
      'allowed_domains[2] "https://example.com/" has a scheme or path; give only the host name',
      `allowed_domains[3] "${'x'.repeat(80)}…" is longer than 255 characters`,
      'allowed_cidrs[1] "10.0.0.0/8:80" is no address range; write 10.0.0.0/8, 2001:db8::/32 or one address, without a port',
    ]);
  });

  test('when it has too many entries, and those beyond allow nothing', () => {
    const allowedDomains = Array.from({ length: MAX_RULES + 1 }, (_, index) => `host${index}.example`);
    expect(findPolicyProblems({ ...NOTHING, allowedDomains: allowedDomains.slice(1) })).toEqual([]);
    expect(findPolicyProblems({ ...NOTHING, allowedDomains })).toEqual([
      'allowed_domains has 10001 entries; at most 10000 are allowed',
    ]);
    expect(compilePolicy({ ...NOTHING, allowedDomains }, []).lookup(`host${MAX_RULES}.example`)).toBe('none');
  });

  test('in few words, however much is wrong', () => {
    const problems = findPolicyProblems({
      ...NOTHING,
      allowedDomains: Array.from({ length: 5_000 }, () => '\u0000"'.repeat(100)),
    });
    expect(problems).toHaveLength(21);
    expect(problems.at(-1)).toBe('and 4980 more entries are wrong');
    expect(problems.join('').length).toBeLessThan(20_000);
  });
});

describe('for every policy', () => {
  const name = fc
    .array(fc.constantFrom('a', 'b', 'com'), { minLength: 1, maxLength: 3 })
    .map((labels) => labels.join('.'));
  const port = fc.constantFrom(22, 80, 443);
  const domainRule = fc
    .tuple(fc.constantFrom('', '*.'), name, fc.constantFrom('', ':22', ':443'))
    .map((parts) => parts.join(''));
  const special = fc.constantFrom(
    '127.0.0.1',
    '10.1.2.3',
    '169.254.169.254',
    '::1',
    'fd00::1',
    '::ffff:10.1.2.3',
    '64:ff9b::a01:203',
    '0.0.0.0',
    '224.0.0.1',
  );
  const address = fc.oneof(fc.constantFrom('8.8.8.8', '8.8.4.4', '2606:4700::1'), special);
  const cidr = fc.constantFrom(
    '10.0.0.0/8',
    '10.1.0.0/16',
    '8.8.8.0/24',
    '0.0.0.0/1',
    '127.0.0.0/8',
    'fd00::/8',
    '2606::/16',
    '::1',
    '64:ff9b::/96',
  );
  const policies: fc.Arbitrary<EgressPolicy> = fc.record({
    allowHttp: fc.boolean(),
    allowHttps: fc.boolean(),
    allowPublicRepos: fc.boolean(),
    allowedDomains: fc.array(domainRule, { maxLength: 4 }),
    allowedCidrs: fc.array(cidr, { maxLength: 2 }),
  });
  const registries = fc.array(domainRule, { maxLength: 2 });
  const question = fc.oneof(
    fc.record({ host: name, isAddress: fc.constant(false), port, resolved: address }),
    address.chain((host) =>
      fc.record({ host: fc.constant(host), isAddress: fc.constant(true), port, resolved: fc.constant(host) }),
    ),
  );
  type Question = { host: string; isAddress: boolean; port: number; resolved: string };

  /** The set itself is held to a model of its own in addresses.test.ts. */
  const cidrModel = (text: string, target: string): boolean =>
    new CidrSet([parseCidrRule(text) as CidrRule]).match(target) !== undefined;

  const domainModel = (rule: string, host: string, asked: number, defaults: readonly number[]): boolean => {
    const [pattern = '', own] = rule.split(':');
    const ports = own === undefined ? defaults : [Number(own)];
    return ports.includes(asked) && (pattern.startsWith('*') ? host.endsWith(pattern.slice(1)) : host === pattern);
  };

  /** The documented semantics, word by word. */
  const model = (
    policy: EgressPolicy,
    repos: readonly string[],
    { host, isAddress, port: asked, resolved }: Question,
  ): boolean => {
    if (policy.allowedCidrs.some((text) => cidrModel(text, resolved))) return true;
    if (specialRange(resolved) !== undefined) return false;
    if ((policy.allowHttp && asked === 80) || (policy.allowHttps && asked === 443)) return true;
    if (isAddress) return false;
    if (policy.allowedDomains.some((rule) => domainModel(rule, host, asked, [22, 80, 443]))) return true;
    return policy.allowPublicRepos && repos.some((rule) => domainModel(rule, host, asked, [80, 443]));
  };

  const verdictOf = (policy: CompiledPolicy, { host, isAddress, port: asked, resolved }: Question): Verdict => {
    if (isAddress) return policy.decideAddress(host, asked, undefined);
    const byName = policy.decideName(host, asked);
    return byName.allowed === false ? byName : policy.decideAddress(resolved, asked, byName);
  };

  test('the decision is what the documented semantics say', () => {
    fc.assert(
      fc.property(policies, registries, question, (policy, repos, asked) => {
        expect(verdictOf(compilePolicy(policy, repos), asked).allowed).toBe(model(policy, repos, asked));
      }),
      { numRuns: 5_000 },
    );
  });

  test('one more rule never denies what was allowed', () => {
    const more = fc.oneof(
      domainRule.map((rule) => (policy: EgressPolicy) => ({
        ...policy,
        allowedDomains: [...policy.allowedDomains, rule],
      })),
      cidr.map((rule) => (policy: EgressPolicy) => ({ ...policy, allowedCidrs: [...policy.allowedCidrs, rule] })),
      fc
        .constantFrom<keyof EgressPolicy>('allowHttp', 'allowHttps', 'allowPublicRepos')
        .map((flag) => (policy: EgressPolicy) => ({ ...policy, [flag]: true })),
    );
    fc.assert(
      fc.property(policies, registries, question, more, (policy, repos, asked, add) => {
        const before = compilePolicy(policy, repos);
        const after = compilePolicy(add(policy), repos);
        if (verdictOf(before, asked).allowed) expect(verdictOf(after, asked).allowed).toBe(true);
        const width = { none: 0, addresses: 1, all: 2 };
        expect(width[after.lookup(asked.host)]).toBeGreaterThanOrEqual(width[before.lookup(asked.host)]);
      }),
      { numRuns: 3_000 },
    );
  });

  test('no special address is allowed without a CIDR', () => {
    fc.assert(
      fc.property(
        policies,
        registries,
        name,
        port,
        special,
        fc.boolean(),
        (policy, repos, host, asked, resolved, isAddress) => {
          const withoutCidrs = compilePolicy({ ...policy, allowedCidrs: [] }, repos);
          const byName = isAddress ? undefined : withoutCidrs.decideName(host, asked);
          expect(withoutCidrs.decideAddress(resolved, asked, byName).allowed).toBe(false);
        },
      ),
      { numRuns: 3_000 },
    );
  });

  test('nobody is asked about a name only if no port of it could be allowed', () => {
    fc.assert(
      fc.property(policies, registries, name, port, address, (policy, repos, host, asked, resolved) => {
        const compiled = compilePolicy(policy, repos);
        const allowed = verdictOf(compiled, { host, isAddress: false, port: asked, resolved }).allowed;
        if (allowed) expect(compiled.lookup(host)).not.toBe('none');
      }),
      { numRuns: 3_000 },
    );
  });

  test('arbitrary entries and questions never throw, rules and reasons fit in a header and a line', () => {
    const text = fc.string({ unit: 'binary', maxLength: 260 });
    const entries = fc.array(fc.oneof(text, fc.domain(), domainRule, cidr, fc.constantFrom('bücher.de', '*.é.com')), {
      maxLength: 4,
    });
    fc.assert(
      fc.property(
        policies,
        entries,
        entries,
        fc.oneof(name, fc.domain()),
        port,
        address,
        (flags, allowedDomains, allowedCidrs, host, asked, resolved) => {
          const policy = { ...flags, allowedDomains, allowedCidrs };
          findPolicyProblems(policy);
          const verdict = verdictOf(compilePolicy(policy, allowedDomains), {
            host,
            isAddress: false,
            port: asked,
            resolved,
          });
          expect(verdict.rule).toMatch(/^[\x21-\x7e]{1,300}$/);
          if (!verdict.allowed) expect(verdict.reason).toMatch(/^[\x20-\x7e]{1,1500}$/);
        },
      ),
      { numRuns: 3_000 },
    );
  });
});

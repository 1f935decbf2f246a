/** Which addresses are not public, and which ranges a set of CIDR rules has. */
import fc from 'fast-check';
import ipaddr from 'ipaddr.js';
import { describe, expect, test } from 'vitest';
import { type CidrRule, CidrSet, parseAddress, parseCidrRule, SPECIAL_RANGES, specialRange } from '../src/index.ts';

describe('an address', () => {
  test.each([
    ['0.0.0.0', 'unspecified'],
    ['0.1.2.3', 'unspecified'],
    ['10.0.0.0', 'private'],
    ['10.255.255.255', 'private'],
    ['172.16.0.0', 'private'],
    ['172.31.255.255', 'private'],
    ['192.168.0.0', 'private'],
    ['192.168.255.255', 'private'],
    ['127.0.0.1', 'loopback'],
    ['127.255.255.254', 'loopback'],
    ['169.254.0.1', 'link_local'],
    ['169.254.169.254', 'metadata'],
    ['169.254.170.2', 'metadata'],
    ['168.63.129.16', 'metadata'],
    ['100.64.0.0', 'carrier_grade_nat'],
    ['100.127.255.255', 'carrier_grade_nat'],
    ['100.100.100.200', 'metadata'],
    ['192.0.0.1', 'reserved'],
    ['192.0.0.192', 'metadata'],
    ['192.0.2.1', 'reserved'],
    ['198.51.100.1', 'reserved'],
    ['203.0.113.1', 'reserved'],
    ['198.18.0.0', 'reserved'],
    ['198.19.255.255', 'reserved'],
    ['192.88.99.1', 'reserved'],
    ['192.175.48.1', 'reserved'],
    ['192.31.196.1', 'reserved'],
    ['192.52.193.1', 'reserved'],
    ['224.0.0.1', 'multicast'],
    ['239.255.255.255', 'multicast'],
    ['240.0.0.1', 'reserved'],
    ['255.255.255.254', 'reserved'],
    ['255.255.255.255', 'broadcast'],
    ['::', 'unspecified'],
    ['::1', 'loopback'],
    ['::2', 'ipv4_compatible'],
    ['::8.8.8.8', 'ipv4_compatible'],
    ['::127.0.0.1', 'ipv4_compatible'],
    ['::ffff:8.8.8.8', 'ipv4_mapped'],
    ['::ffff:127.0.0.1', 'ipv4_mapped'],
    ['::ffff:0:8.8.8.8', 'ipv4_translated'],
    ['64:ff9b::8.8.8.8', 'nat64'],
    ['64:ff9b::a9fe:a9fe', 'nat64'],
    ['64:ff9b:1::1', 'nat64'],
    ['64:ff9b:1:ffff::1', 'nat64'],
    ['2002:a00:1::', '6to4'],
    ['2002:808:808::1', '6to4'],
    ['2001::1', 'teredo'],
    ['2001:0:4136:e378:8000:63bf:3fff:fdd2', 'teredo'],
    ['2001:2::1', 'reserved'],
    ['2001:1::1', 'reserved'],
    ['2001:3::1', 'reserved'],
    ['2001:10::1', 'reserved'],
    ['2001:20::1', 'reserved'],
    ['2001:30::1', 'reserved'],
    ['2001:1ff::1', 'reserved'],
    ['2001:db8::1', 'reserved'],
    ['3fff::1', 'reserved'],
    ['100::1', 'reserved'],
    ['5f00::1', 'reserved'],
    ['2620:4f:8000::1', 'reserved'],
    ['4000::1', 'reserved'],
    ['1::1', 'reserved'],
    ['8000::1', 'reserved'],
    ['fe00::1', 'reserved'],
    ['fe80::1', 'link_local'],
    ['febf::1', 'link_local'],
    ['fec0::1', 'site_local'],
    ['fc00::1', 'unique_local'],
    ['fdff::1', 'unique_local'],
    ['fd00:ec2::254', 'metadata'],
    ['fd00:ec2::23', 'metadata'],
    ['fd20:ce::254', 'metadata'],
    ['ff02::1', 'multicast'],
    ['fe80::1%eth0', 'invalid'],
    ['127.1', 'invalid'],
    ['', 'invalid'],
    ['example.com', 'invalid'],
    ['010.0.0.1', 'invalid'],
  ])('%s is special: %s', (address, range) => {
    expect(specialRange(address)).toBe(range);
    expect(SPECIAL_RANGES).toContain(range);
  });

  test.each([
    '1.1.1.1',
    '8.8.8.8',
    '9.255.255.255',
    '11.0.0.0',
    '93.184.216.34',
    '100.63.255.255',
    '100.128.0.0',
    '126.255.255.255',
    '128.0.0.1',
    '169.253.255.255',
    '169.255.0.0',
    '172.15.255.255',
    '172.32.0.0',
    '192.167.255.255',
    '192.169.0.0',
    '198.17.255.255',
    '198.20.0.0',
    '223.255.255.255',
    '2001:200::1',
    '2001:4860:4860::8888',
    '2003::1',
    '2606:4700:4700::1111',
    '2a00::1',
    '3ffe::1',
  ])('%s is public', (address) => {
    expect(specialRange(address)).toBeUndefined();
  });

  test('of every range that ipaddr.js names is special', () => {
    const tables = [ipaddr.IPv4, ipaddr.IPv6].map(({ prototype }) =>
      Object.values(Reflect.get(prototype, 'SpecialRanges')),
    );
    const bases = tables.flat(4).filter((entry) => entry instanceof ipaddr.IPv4 || entry instanceof ipaddr.IPv6);
    expect(bases.length).toBeGreaterThan(40);
    for (const base of bases) expect(specialRange(base), base.toString()).toBeDefined();
  });

  test('that embeds an IPv4 address is special, whichever that is', () => {
    const prefix = fc.constantFrom('::ffff:', '::', '64:ff9b::', '::ffff:0:', '64:ff9b:1::');
    fc.assert(fc.property(prefix, fc.ipV4(), (head, tail) => specialRange(head + tail) !== undefined));
  });

  test('of arbitrary text never throws, and an address is what the C library takes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.ipV4Extended(), fc.ipV6(), fc.string({ unit: 'binary', maxLength: 60 })), (text) => {
        const range = specialRange(text);
        expect(range === 'invalid').toBe(parseAddress(text) === undefined);
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('a CIDR rule', () => {
  test.each([
    [
      '10.0.0.0/8',
      ['10.0.0.0', '10.255.255.255', '::ffff:10.1.2.3'],
      ['9.255.255.255', '11.0.0.0', '::10.1.2.3', 'a00::'],
    ],
    ['10.1.2.3/8', ['10.0.0.0', '10.255.255.255'], ['11.0.0.0']],
    [' 10.0.0.5 ', ['10.0.0.5'], ['10.0.0.4', '10.0.0.6']],
    ['10.0.0.5/32', ['10.0.0.5'], ['10.0.0.4']],
    ['10.0.0.5/31', ['10.0.0.4', '10.0.0.5'], ['10.0.0.3', '10.0.0.6']],
    ['10.0.64.0/18', ['10.0.64.0', '10.0.127.255'], ['10.0.63.255', '10.0.128.0']],
    ['0.0.0.0/0', ['0.0.0.0', '127.0.0.1', '255.255.255.255', '::ffff:1.2.3.4'], ['::', '::1', '2001:db8::1']],
    ['::/0', ['::', '::1', '2001:db8::1', 'ffff::'], ['1.2.3.4', '::ffff:1.2.3.4']],
    ['2001:db8::/33', ['2001:db8::', '2001:db8:7fff:ffff::1'], ['2001:db8:8000::', '2001:db7::']],
    ['2001:DB8::1', ['2001:db8::1', '2001:db8:0::1'], ['2001:db8::2']],
    ['::ffff:10.0.0.0/104', ['10.255.0.1', '::ffff:10.0.0.1'], ['11.0.0.0', '::a00:1']],
    ['::ffff:10.0.0.1', ['10.0.0.1'], ['10.0.0.2']],
    ['64:ff9b::/96', ['64:ff9b::8.8.8.8'], ['8.8.8.8']],
  ])('%s', (text, inside, outside) => {
    const rule = parseCidrRule(text);
    const set = new CidrSet(rule ? [rule] : []);
    for (const address of inside) expect(set.match(address), address).toBe(text.trim());
    for (const address of outside) expect(set.match(address), address).toBeUndefined();
  });

  test.each([
    '',
    '/',
    '/8',
    '10.0.0.0/',
    '10.0.0.0/33',
    '10.0.0.0/-1',
    '10.0.0.0/+8',
    '10.0.0.0/08',
    '10.0.0.0/8/8',
    '10.0.0.0/8:80',
    '10.0.0.0:80',
    '10.0.0.0/255.0.0.0',
    '10.0.0.0/8.0',
    '10/8',
    '10.0.0/8',
    '010.0.0.0/8',
    '0xa.0.0.0/8',
    '10.0.0.0 /8',
    '::1/129',
    '[::1]',
    '[::1]/128',
    'fe80::1%1/64',
    '::ffff:1.2.3.4/1e2',
    'example.com',
    'any',
    '*',
    '1.2.3.4-1.2.3.9',
    '10.0.0.0/8'.padEnd(10_000, '0'),
  ])('%j is none', (text) => {
    expect(parseCidrRule(text)).toBeUndefined();
  });

  test('of arbitrary text never throws', () => {
    const piece = fc.constantFrom('1', '0', '255', '.', ':', '::', '/', 'ffff', '32', '128', '%', ' ', '10.0.0.0');
    const pieces = fc.array(piece, { maxLength: 12 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(pieces, fc.string({ unit: 'binary', maxLength: 60 })), (text) => {
        const rule = parseCidrRule(text);
        if (rule) expect(rule.first <= rule.last).toBe(true);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('a set of CIDR rules', () => {
  // Few distinct addresses, so that ranges lie in one another and addresses fall into them.
  const octet = fc.constantFrom(0, 1, 127, 128, 254, 255);
  const ipv4 = fc.tuple(fc.constantFrom(10, 11), octet, octet, octet).map((octets) => octets.join('.'));
  const ipv6 = fc
    .tuple(
      fc.constantFrom('2001', '2002', '3000'),
      fc.constantFrom('0', '1', '7fff', '8000', 'ffff'),
      fc.constantFrom('0', '1', 'ffff'),
    )
    .map(([a, b, c]) => `${a}:${b}:0:0:0:${c}:0:1`);
  const ipv4Rule = fc.tuple(ipv4, fc.integer({ min: 0, max: 32 })).map(([address, prefix]) => `${address}/${prefix}`);
  const ipv6Rule = fc.tuple(ipv6, fc.integer({ min: 0, max: 128 })).map(([address, prefix]) => `${address}/${prefix}`);
  const texts = fc.array(fc.oneof(ipv4Rule, ipv6Rule, ipv4, ipv6), { maxLength: 25 });
  const addresses = fc.oneof(
    ipv4,
    ipv6,
    ipv4.map((text) => `::ffff:${text}`),
  );

  /** One rule after the other, by ipaddr.js. */
  const inRule = (text: string, address: string): boolean => {
    const parsed = ipaddr.process(address);
    const [base, prefix] = ipaddr.parseCIDR(text.includes('/') ? text : `${text}/${text.includes(':') ? 128 : 32}`);
    return parsed.kind() === base.kind() && parsed.match([base, prefix] as never);
  };
  const compiled = (rules: readonly string[]): CidrSet =>
    new CidrSet(rules.map(parseCidrRule).filter((rule): rule is CidrRule => rule !== undefined));

  test('has what one of its rules has, and names such a rule', () => {
    fc.assert(
      fc.property(texts, addresses, (rules, address) => {
        const matched = compiled(rules).match(address);
        expect(matched !== undefined).toBe(rules.some((rule) => inRule(rule, address)));
        if (matched !== undefined) {
          expect(rules).toContain(matched);
          expect(inRule(matched, address)).toBe(true);
        }
      }),
      { numRuns: 5_000 },
    );
  });

  test('does not depend on the order of its rules', () => {
    fc.assert(
      fc.property(texts, addresses, (rules, address) => {
        const matched = (order: readonly string[]): boolean => compiled(order).match(address) !== undefined;
        expect(matched(rules)).toBe(matched(rules.toReversed()));
      }),
      { numRuns: 1_000 },
    );
  });
});

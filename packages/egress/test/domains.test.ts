/** Domain rules: which texts are rules, and which names a set of them has. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DomainSet, parseDomainRule } from '../src/index.ts';

const setOf = (texts: readonly string[], ports?: readonly number[]): DomainSet =>
  new DomainSet(
    texts.flatMap((text) => {
      const parsed = parseDomainRule(text);
      return 'rule' in parsed ? [parsed.rule] : [];
    }),
    ports,
  );

describe('a domain rule', () => {
  test.each([
    ['example.com', 'example.com'],
    [' Example.COM. ', 'example.com'],
    ['example.com:443', 'example.com:443'],
    ['EXAMPLE.com.:8080', 'example.com:8080'],
    ['*.example.com', '*.example.com'],
    ['*.Example.com:22', '*.example.com:22'],
    ['*.com', '*.com'],
    ['localhost:80', 'localhost:80'],
    ['bücher.de', 'xn--bcher-kva.de'],
    ['*.bücher.de:443', '*.xn--bcher-kva.de:443'],
    ['_http._tcp.example.com', '_http._tcp.example.com'],
  ])('%j is %j', (text, expected) => {
    expect(parseDomainRule(text)).toMatchObject({ rule: { text: expected } });
  });

  test.each([
    ['', 'empty'],
    ['  ', 'empty'],
    ['*', 'allow_https'],
    ['*:443', 'allow_https'],
    ['.example.com', 'write *.example.com'],
    ['https://example.com', 'only the host name'],
    ['https://example.com/x', 'only the host name'],
    ['example.com/x', 'only the host name'],
    ['//example.com', 'only the host name'],
    ['1.2.3.4', 'allowed_cidrs'],
    ['1.2.3.4:80', 'allowed_cidrs'],
    ['10.0.0.0/8', 'allowed_cidrs'],
    ['::1', 'allowed_cidrs'],
    ['[::1]', 'allowed_cidrs'],
    ['[::1]:443', 'allowed_cidrs'],
    ['2001:db8::/32', 'allowed_cidrs'],
    ['example.com:', 'port'],
    ['example.com:0', 'port'],
    ['example.com:65536', 'port'],
    ['example.com:https', 'port'],
    ['example.com:443:443', 'not a host name'],
    ['https:example.com', 'port'],
    ['*example.com', 'wildcard'],
    ['foo.*.com', 'wildcard'],
    ['*.*.com', 'wildcard'],
    ['**.com', 'wildcard'],
    ['foo.*', 'wildcard'],
    ['*.', 'not a host name'],
    ['127.1', 'not a host name'],
    ['2130706433', 'not a host name'],
    ['a b.com', 'not a host name'],
    ['a..b', 'not a host name'],
    ['user@example.com', 'not a host name'],
    ['*.127.0.0.1', 'not a host name'],
    ['exa%6dple.com', 'not a host name'],
  ])('%j is refused, and the reason says %j', (text, part) => {
    expect(parseDomainRule(text)).toEqual({ problem: expect.stringContaining(part) });
  });

  test('of arbitrary text never throws, and its normal form is the same rule', () => {
    const piece = fc.constantFrom('*', '.', '*.', ':', 'a', 'é', 'com', '443', '/', '[', ']', '1', '::', ' ', '@', '%');
    const pieces = fc.array(piece, { maxLength: 12 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(pieces, fc.domain(), fc.string({ unit: 'binary', maxLength: 255 })), (text) => {
        const parsed = parseDomainRule(text);
        if ('problem' in parsed) expect(parsed.problem.length).toBeLessThan(500);
        else expect(parseDomainRule(parsed.rule.text)).toEqual(parsed);
      }),
      { numRuns: 5_000 },
    );
  });
});

describe('a set of domain rules', () => {
  test.each([
    [
      'example.com',
      ['example.com:1', 'example.com:443'],
      ['www.example.com:443', 'com:443', 'xexample.com:443', 'example.com.evil:443', 'example.co:443'],
    ],
    [
      '*.example.com',
      ['www.example.com:443', 'a.b.c.example.com:22'],
      ['example.com:443', 'xexample.com:443', 'www.example.com.evil:443', 'com:443'],
    ],
    ['example.com:443', ['example.com:443'], ['example.com:80', 'www.example.com:443']],
    ['*.example.com:443', ['www.example.com:443'], ['www.example.com:80', 'example.com:443']],
    ['*.com', ['example.com:80', 'a.example.com:80'], ['com:80', 'example.org:80']],
    ['com', ['com:80'], ['example.com:80']],
  ])('%s: allows %j and not %j', (rule, inside, outside) => {
    const set = setOf([rule]);
    const match = (destination: string): string | undefined => {
      const [name = '', port] = destination.split(':');
      return set.match(name, Number(port));
    };
    for (const destination of inside) expect(match(destination), destination).toBe(rule);
    for (const destination of outside) expect(match(destination), destination).toBeUndefined();
  });

  test('names the rule nearest to the name', () => {
    const set = setOf(['*.com', '*.example.com', 'www.example.com', 'www.example.com:22', '*.www.example.com:443']);
    expect(set.match('www.example.com', 22)).toBe('www.example.com');
    expect(set.match('ftp.example.com', 22)).toBe('*.example.com');
    expect(set.match('a.www.example.com', 443)).toBe('*.www.example.com:443');
    expect(set.match('a.www.example.com', 80)).toBe('*.example.com');
    expect(set.match('other.com', 80)).toBe('*.com');
  });

  test('falls back to default ports where a rule gives none', () => {
    const set = setOf(['mirror.example', 'other.example:8081'], [80, 443]);
    expect([80, 443, 22].map((port) => set.match('mirror.example', port))).toEqual([
      'mirror.example',
      'mirror.example',
      undefined,
    ]);
    expect([80, 8081].map((port) => set.match('other.example', port))).toEqual([undefined, 'other.example:8081']);
  });

  test('takes labels that are names of properties for labels', () => {
    const set = setOf(['a.example', '__proto__.example']);
    expect(set.match('constructor.example', 80)).toBeUndefined();
    expect(set.match('__proto__', 80)).toBeUndefined();
    expect(set.match('__proto__.example', 80)).toBe('__proto__.example');
  });

  // Few labels, so that rules and names meet.
  const label = fc.constantFrom('a', 'b', 'com');
  const name = fc.array(label, { minLength: 1, maxLength: 4 }).map((labels) => labels.join('.'));
  const port = fc.constantFrom(80, 443, 22);
  const rule = fc
    .tuple(fc.constantFrom('', '*.'), name, fc.option(port, { nil: undefined }))
    .map(([head, tail, onPort]) => `${head}${tail}${onPort === undefined ? '' : `:${onPort}`}`);

  const inRule = (text: string, asked: string, askedPort: number): boolean => {
    const [pattern = '', onPort] = text.split(':');
    if (onPort !== undefined && Number(onPort) !== askedPort) return false;
    return pattern.startsWith('*') ? asked.endsWith(pattern.slice(1)) : asked === pattern;
  };

  test('has what one of its rules has, and names such a rule', () => {
    fc.assert(
      fc.property(fc.array(rule, { maxLength: 8 }), name, port, (rules, asked, askedPort) => {
        const set = setOf(rules);
        const matched = set.match(asked, askedPort);
        expect(matched !== undefined).toBe(rules.some((text) => inRule(text, asked, askedPort)));
        if (matched !== undefined) {
          expect(rules).toContain(matched);
          expect(inRule(matched, asked, askedPort)).toBe(true);
        }
        expect(set.covers(asked)).toBe(rules.some((text) => [80, 443, 22].some((each) => inRule(text, asked, each))));
      }),
      { numRuns: 5_000 },
    );
  });
});

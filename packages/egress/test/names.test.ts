/** Host names and CONNECT authorities: what has a normal form, and that nothing else has. */
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { addressText, normalizeName, parseAddress, parseAuthority } from '../src/index.ts';

const label63 = 'a'.repeat(63);
const name253 = `${`${label63}.`.repeat(3)}${'b'.repeat(61)}`;

describe('a host name', () => {
  test.each([
    ['example.com', 'example.com'],
    ['EXAMPLE.Com', 'example.com'],
    ['example.com.', 'example.com'],
    ['EXAMPLE.COM.', 'example.com'],
    ['localhost', 'localhost'],
    ['a-b.c-d', 'a-b.c-d'],
    ['_dmarc.example.com', '_dmarc.example.com'],
    ['_http._tcp.example.com', '_http._tcp.example.com'],
    ['1password.com', '1password.com'],
    ['4.3.2.1.in-addr.arpa', '4.3.2.1.in-addr.arpa'],
    ['123.example', '123.example'],
    ['bücher.de', 'xn--bcher-kva.de'],
    ['BÜCHER.de.', 'xn--bcher-kva.de'],
    ['bücher。de。', 'xn--bcher-kva.de'],
    ['XN--BCHER-KVA.de', 'xn--bcher-kva.de'],
    ['straße.de', 'xn--strae-oqa.de'],
    ['ｅｘａｍｐｌｅ.com', 'example.com'],
    ['例え.テスト', 'xn--r8jz45g.xn--zckzah'],
    ['\u212A.com', 'k.com'],
    [`${label63}.com`, `${label63}.com`],
    [name253, name253],
    [`${name253}.`, name253],
  ])('%j is %j', (text, expected) => {
    expect(normalizeName(text)).toBe(expected);
  });

  test.each([
    '',
    '.',
    '..',
    '.com',
    'a..b',
    'example.com..',
    'bücher..de',
    '。de',
    'a b',
    ' a',
    'a ',
    'a\tb',
    'a\nb',
    'a\0b',
    'a/b',
    'a\\b',
    'a:80',
    'a@b',
    'a?b',
    'a#b',
    'a%2eb',
    '%61.com',
    '*.a.com',
    '[a]',
    'a,b',
    'http://a',
    '127.0.0.1',
    '127.1',
    '127',
    '2130706433',
    '0x7f000001',
    '0x7f.1',
    '0177.0.0.1',
    'example.123',
    'example.0x',
    'example.0x1f',
    '1.2.3.4.',
    '１２７.０.０.１',
    '１２７。１',
    '２１３０７０６４３３',
    'é.１',
    '::1',
    '[::1]',
    'fe80::1%eth0',
    '％61.de',
    'a／b.de',
    'a：80',
    'a＠b.de',
    '℀.com',
    '⒈com',
    'é%61.de',
    'é/x.de',
    'é\ud800.de',
    'xn--a.é',
    `a${label63}.com`,
    `é${label63}.com`,
    `a${name253}`,
    `é.${'a.'.repeat(200)}com`,
    'a'.repeat(100_000),
    '.'.repeat(100_000),
  ])('%j is none', (text) => {
    expect(normalizeName(text)).toBeUndefined();
  });

  test('that is in normal form stays as it is', () => {
    fc.assert(
      fc.property(fc.oneof(fc.domain(), fc.string({ unit: 'binary', maxLength: 80 }), fc.webAuthority()), (text) => {
        const once = normalizeName(text);
        if (once !== undefined) expect(normalizeName(once)).toBe(once);
      }),
      { numRuns: 2_000 },
    );
  });

  test('in normal form is short, and has only the letters of names', () => {
    const piece = fc.constantFrom(
      'a',
      'Z',
      '9',
      '0x',
      '-',
      '_',
      '.',
      '。',
      'é',
      '％',
      '1',
      'xn--',
      '\u00ad',
      '\u200d',
      '/',
      ':',
      '\0',
    );
    const text = fc.array(piece, { maxLength: 300 }).map((pieces) => pieces.join(''));
    fc.assert(
      fc.property(fc.oneof(text, fc.string({ unit: 'binary', maxLength: 400 })), (input) => {
        const name = normalizeName(input);
        if (name === undefined) return;
        expect(name.length).toBeLessThanOrEqual(253);
        expect(name).toMatch(/^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/);
        expect(parseAddress(name)).toBeUndefined();
        expect(name.split('.').at(-1)).not.toMatch(/^(\d+|0x[\da-f]*)$/);
      }),
      { numRuns: 3_000 },
    );
  });
});

describe('an authority', () => {
  test.each([
    ['example.com:443', { host: 'example.com', isAddress: false, port: 443 }],
    ['EXAMPLE.com.:1', { host: 'example.com', isAddress: false, port: 1 }],
    ['1.2.3.4:65535', { host: '1.2.3.4', isAddress: true, port: 65535 }],
    ['[::1]:80', { host: '::1', isAddress: true, port: 80 }],
    ['[2001:DB8:0:0:0:0:0:1]:80', { host: '2001:db8::1', isAddress: true, port: 80 }],
    ['[::ffff:1.2.3.4]:80', { host: '::ffff:102:304', isAddress: true, port: 80 }],
    ['[::1.2.3.4]:80', { host: '::102:304', isAddress: true, port: 80 }],
  ])('%j is read', (text, expected) => {
    expect(parseAuthority(text)).toEqual(expected);
  });

  test.each([
    '',
    ':',
    ':80',
    'a',
    'a:',
    'a:0',
    'a:00',
    'a:080',
    'a:65536',
    'a:99999',
    'a:100000',
    'a:+80',
    'a:-1',
    'a:8e1',
    'a: 80',
    'a:80 ',
    ' a:80',
    'a:８０',
    'a:80:80',
    'a:80/',
    'http://a:80',
    'u@a:80',
    'a b:80',
    '::1:80',
    '[::1]',
    '[::1]80',
    '[::1]:',
    '[::1:80',
    '::1]:80',
    '[[::1]]:80',
    '[1.2.3.4]:80',
    '[a]:80',
    '[]:80',
    '[fe80::1%1]:80',
    '[fe80::1%25eth0]:80',
    '[v1.x]:80',
    '[::1.2.3]:80',
    '[::01.2.3.4]:80',
    '[1:2:3:4:5:6:7:8:9]:80',
    '[::1::]:80',
    '[12345::]:80',
    '127.1:80',
    '0177.0.0.1:80',
    '0x7f.0.0.1:80',
    '2130706433:80',
    '1.2.3.4.:80',
    '1.2.3.256:80',
    '1.2.3.4.5:80',
    '01.2.3.4:80',
    `${'a'.repeat(100_000)}:80`,
    `a:${'0'.repeat(100_000)}80`,
    '\ud800:80',
    'a\r\nb:80',
  ])('%j is refused', (text) => {
    expect(parseAuthority(text)).toBeUndefined();
  });

  test('keeps every address, and gives it the text that URLs have', () => {
    const host = fc.oneof(
      fc.ipV4(),
      fc.ipV6().map((text) => `[${text}]`),
    );
    fc.assert(
      fc.property(host, fc.integer({ min: 1, max: 65_535 }), (text, port) => {
        const { hostname } = new URL(`http://${text}/`);
        expect(parseAuthority(`${text}:${port}`)).toEqual({
          host: hostname.replace(/[[\]]/g, ''),
          isAddress: true,
          port,
        });
      }),
      { numRuns: 3_000 },
    );
  });

  test('of arbitrary text never throws, and what it reads is read the same again', () => {
    const piece = fc.constantFrom(
      '[',
      ']',
      ':',
      '.',
      '1',
      '0',
      'ff',
      '80',
      'a',
      '%',
      '::',
      '127.0.0.1',
      '-',
      '/',
      '@',
      ' ',
    );
    const pieces = fc.array(piece, { maxLength: 14 }).map((parts) => parts.join(''));
    fc.assert(
      fc.property(fc.oneof(pieces, fc.string({ unit: 'binary', maxLength: 300 })), (text) => {
        const destination = parseAuthority(text);
        if (!destination) return;
        const { host, isAddress, port } = destination;
        expect(parseAuthority(host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)).toEqual(destination);
        const address = parseAddress(host);
        expect(address !== undefined).toBe(isAddress);
        if (address) expect(addressText(address)).toBe(host);
      }),
      { numRuns: 5_000 },
    );
  });
});

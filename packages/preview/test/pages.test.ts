import { type ErrorCode, InstaVMError } from '@instavm/wire';
import { describe, expect, it } from 'vitest';
import { requestFields, responseFields, takeToken } from '../src/headers.ts';
import { hostNameOf, shareOfHost } from '../src/hosts.ts';
import { errorPage, prefersHtml } from '../src/pages.ts';

describe('a page', () => {
  it('is HTML for browsers and the error body of the API for everyone else', () => {
    const browser = 'text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8';
    for (const accept of [browser, 'text/html', 'application/json;q=0.5, text/html;q=0.5'])
      expect(prefersHtml(accept)).toBe(true);
    for (const accept of [
      undefined,
      '',
      '*/*',
      'application/json',
      'application/json, text/html;q=0.9',
      'text/html;q=0',
      'text/*',
    ]) {
      expect([accept, prefersHtml(accept)]).toEqual([accept, false]);
    }
  });

  it('says what a visitor can do, not what a caller of the API can', () => {
    const codes: readonly ErrorCode[] = [
      ...(['share_not_found', 'route_not_found', 'malformed_request', 'misdirected_request', 'url_too_long'] as const),
      ...([
        'headers_too_large',
        'port_not_listening',
        'service_failed',
        'service_timeout',
        'sandbox_suspended',
      ] as const),
      ...(['invalid_state', 'conflict', 'capacity_unavailable', 'guest_unresponsive', 'guest_lost'] as const),
      ...(['shutting_down', 'lease_expired', 'sandbox_not_found', 'rate_limited', 'internal'] as const),
    ];
    for (const code of codes) {
      const [page, json] = ['text/html', undefined].map((accept) =>
        errorPage(new InstaVMError(code, 'Said so.'), accept),
      );
      const { hint } = JSON.parse(json?.body ?? '');
      expect([code, hint]).toEqual([
        code,
        expect.not.stringMatching(/GET \/|details|resume it first|end a sandbox|log/i),
      ]);
      expect(page?.body).toContain(hint);
    }
  });

  it('shows what an error says as text, and loads nothing', () => {
    const page = errorPage(new InstaVMError('port_not_listening', '<script>"&\'</script>'), 'text/html');
    expect(page.body).toContain('&lt;script&gt;&quot;&amp;&#39;&lt;/script&gt;');
    expect(page.body).not.toMatch(/src=|href=|url\(/);
    expect(page.body.match(/<script/g)).toHaveLength(1);
    expect(page.headers['content-security-policy']).toMatch(
      /^default-src 'none'; style-src 'sha256-\S+'; script-src 'sha256-\S+'; connect-src 'self';/,
    );
    expect(page.headers['cache-control']).toBe('no-store');
  });
});

const visit = { clientAddress: '2001:db8::1', authority: 'a.b', hostName: 'a.b', httpVersion: '1.1' };

describe('header fields', () => {
  it('that a visitor may not write are gone however they are spelled', () => {
    const fields = requestFields(
      [
        ['X_Forwarded_For', '6.6.6.6'],
        ['x-instavm-token', 't'],
        ['Transfer_Encoding', 'chunked'],
        ['Authorization', 'BEARER  instavm_sk_abc'],
        ['X-Api-Key', ' instavm_sk_abc'],
        ['Connection', 'x-a,  X-B , close'],
        ['X-A', '1'],
        ['x-b', '2'],
        ['Cookie', 'a=1;__Host-instavm_preview=v; b=2'],
        ['Cookie', ' __HOST-INSTAVM_PREVIEW=v'],
        ['X-C', '3'],
      ],
      visit,
    );
    expect(fields).toEqual([
      ['Host', 'a.b'],
      ['X-C', '3'],
      ['Cookie', 'a=1; b=2'],
      ['X-Forwarded-For', '2001:db8::1'],
      ['X-Forwarded-Proto', 'https'],
      ['X-Forwarded-Host', 'a.b'],
      ['Forwarded', 'for="[2001:db8::1]";host="a.b";proto=https'],
      ['Via', '1.1 instavm'],
    ]);
  });

  it('name the service as it wants to be named, in both directions, and nobody else', () => {
    const renamed = { ...visit, authority: 'A.b:8443', serviceAuthority: 'localhost:3000' };
    const sent = (origin: string) => requestFields([['Origin', origin]], renamed).slice(0, 2);
    expect(sent('https://a.B:8443')).toEqual([
      ['Host', 'localhost:3000'],
      ['Origin', 'http://localhost:3000'],
    ]);
    for (const origin of ['https://evil.example', 'http://a.b:8443', 'https://a.b', 'null'])
      expect(sent(origin)[1]).toEqual(['Origin', origin]);
    const led = (location: string) => responseFields([['Location', location]], renamed)[0]?.[1];
    expect(led('http://localhost:3000/x?y#z')).toBe('https://A.b:8443/x?y#z');
    expect(led('https://LOCALHOST:3000')).toBe('https://A.b:8443');
    for (const location of [
      '/x',
      'http://localhost:30001/x',
      'http://localhost:3000@evil.example/',
      'https://a.b/',
      '',
    ])
      expect(led(location)).toBe(location);
    expect(responseFields([['Location', 'http://localhost:3000/']], visit)[0]?.[1]).toBe('http://localhost:3000/');
  });

  it('keep a cookie on the host of its share', () => {
    const cookies = (value: string): string[] =>
      responseFields([['Set-Cookie', value]], { ...visit, hostName: 'x.preview.localhost' }).map(([, kept]) => kept);
    expect(cookies('a=1; Domain=x.preview.localhost; Secure')).toEqual(['a=1; Domain=x.preview.localhost; Secure']);
    expect(cookies('a=1; domain=.preview.localhost; Secure')).toEqual(['a=1; Secure']);
    expect(cookies('a=1;DOMAIN = preview.localhost')).toEqual(['a=1']);
    expect(cookies('a=1; Domain')).toEqual(['a=1']);
    expect(cookies('a=domain=x')).toEqual(['a=domain=x']);
    for (const ours of [
      '__Host-instavm_preview=x',
      ' __host-INSTAVM_preview =x',
      '=__Host-instavm_preview=x',
      '= =__Host-instavm_preview=x',
    ]) {
      expect([ours, cookies(ours)]).toEqual([ours, []]);
    }
  });
});

it('the token is taken out of a target, and nothing else is changed', () => {
  expect(takeToken('/a?b=%20&instavm_token=t.x&c')).toEqual({ target: '/a?b=%20&c', token: 't.x' });
  expect(takeToken('/?instavm_token=t')).toEqual({ target: '/', token: 't' });
  expect(takeToken('/?instavm%5Ftoken=t&instavm_token=u&x')).toEqual({ target: '/?x', token: 't' });
  expect(takeToken('/?%zz=1&q')).toEqual({ target: '/?%zz=1&q', token: undefined });
  expect(takeToken('/instavm_token=t')).toEqual({ target: '/instavm_token=t', token: undefined });
});

it('host names of shares are exact', () => {
  const id = `shr${'a'.repeat(20)}`;
  const share = (authority: string) => shareOfHost(hostNameOf(authority) ?? '', 'preview.localhost');
  expect(share(`${id}.preview.localhost:8443`)).toEqual({ id });
  expect(share(`${id.toUpperCase()}.Preview.LOCALHOST`)).toEqual({ id });
  for (const label of ['www', `${id}a`, `x.${id}`, 'shr'])
    expect(share(`${label}.preview.localhost`)).toEqual({ id: undefined });
  for (const host of [
    'preview.localhost',
    `${id}.preview.localhost.`,
    `${id}.evilpreview.localhost`,
    `${id}.preview.localhost.evil`,
  ]) {
    expect([host, share(host)]).toEqual([host, undefined]);
  }
  for (const host of ['', 'a b', 'user@a.b', '[::1]', 'a.b:123456', 'a.b:', 'ä.b', 'a/b'])
    expect([host, hostNameOf(host)]).toEqual([host, undefined]);
});

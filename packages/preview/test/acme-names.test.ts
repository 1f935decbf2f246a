import { expect, it } from 'vitest';
import { pauseAfter, renewalOf } from '../src/acme/renewal.ts';
import { domainNameProblem } from '../src/index.ts';

const problem = (name: string): string | undefined => domainNameProblem(name, 'preview.example.com');

it.each([
  'example.org',
  'a.b.c.example.org',
  'www.example.com',
  'xn--bcher-kva.example',
  '1and1.com',
  'notpreview.example.com',
  'a--b.example',
])('%s can be a custom domain', (name) => expect(problem(name)).toBeUndefined());

it.each([
  ['', 'is no host name'],
  ['localhost', 'two labels'],
  ['Example.org', 'lower case'],
  ['bücher.example', 'xn--'],
  ['xn--a.example', 'no internationalized name'],
  ['ab--c.example', 'no internationalized name'],
  ['10.0.0.1', 'address'],
  ['1.2.3.0x7f', 'address'],
  ['[::1]', 'is no host name'],
  ['example.org.', 'is no host name'],
  ['a..b', 'is no host name'],
  ['-a.example', 'is no host name'],
  ['a_b.example', 'is no host name'],
  ['*.example.org', 'is no host name'],
  ['example.org:443', 'is no host name'],
  ['a.example/..', 'is no host name'],
  ['exa mple.org', 'is no host name'],
  ['example.org\n', 'is no host name'],
  [`${'a'.repeat(64)}.example`, 'is no host name'],
  [`${'a.'.repeat(130)}example`, 'longer than 253'],
  ['preview.example.com', 'preview domain'],
  ['x.y.preview.example.com', 'preview domain'],
  ['example.com', 'above the preview domain'],
])('%j cannot be a custom domain', (name, why) => expect(problem(name)).toContain(why));

it('a certificate is renewed when two thirds of its time are over, give or take', () => {
  const startsAt = new Date('2030-01-01T00:00:00Z');
  const expiresAt = new Date('2030-04-01T00:00:00Z');
  expect(renewalOf({ startsAt, expiresAt }, 0).toISOString()).toBe('2030-03-02T00:00:00.000Z');
  expect(renewalOf({ startsAt, expiresAt }, 1).toISOString()).toBe('2030-03-04T16:48:00.000Z');
});

it('failures in a row are further and further apart, and as far as the authority asks for', () => {
  const minutes = [1, 2, 3, 4, 5, 6, 7, 8, 100].map((failures) => pauseAfter(failures, 0, 0.5) / 60_000);
  expect(minutes).toEqual([5, 10, 20, 40, 80, 160, 320, 360, 360]);
  expect(pauseAfter(1, 7_200_000, 0.5)).toBe(7_200_000);
  expect([pauseAfter(1, 0, 0), pauseAfter(1, 0, 1)]).toEqual([270_000, 330_000]);
});

/** Whose address counts, and for how many: of strangers at the door, with and without a proxy before it. */
import { once } from 'node:events';
import { IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { addressOf, limitedAs, trustedProxies } from '../src/client-address.ts';
import { Attempts } from '../src/sign-in/attempts.ts';
import { apiOf } from './api.ts';
import { Browser, OWN } from './browser.ts';

function requestFrom(remoteAddress: string | undefined, forwardedFor?: string): IncomingMessage {
  const request = new IncomingMessage({ remoteAddress } as Socket);
  if (forwardedFor !== undefined) request.headers['x-forwarded-for'] = forwardedFor;
  return request;
}

describe('the address of who asks', () => {
  const trusted = trustedProxies(['10.0.0.0/8', '::1']);
  it.each([
    ['a stranger says nothing', '203.0.113.7', undefined, '203.0.113.7'],
    ['a stranger says that it is another', '203.0.113.7', '198.51.100.1', '203.0.113.7'],
    ['a proxy says for whom it asks', '10.0.0.1', '198.51.100.1', '198.51.100.1'],
    ['a proxy adds to what a stranger made up', '10.0.0.1', '127.0.0.1, 10.0.0.9, 198.51.100.1', '198.51.100.1'],
    ['one proxy asks another', '::1', '198.51.100.1, 10.2.3.4', '198.51.100.1'],
    ['a proxy is seen through an IPv6 socket', '::ffff:10.0.0.1', '2001:db8::1', '2001:db8::1'],
    ['a proxy asks for nobody', '10.0.0.1', undefined, '10.0.0.1'],
    ['the connection is gone', undefined, '198.51.100.1', 'unknown'],
  ])('is right when %s', (_, remote, forwardedFor, address) => {
    expect(addressOf(requestFrom(remote, forwardedFor), trusted)).toBe(address);
  });

  it('is the proxy’s while nobody said that it is one', () => {
    expect(addressOf(requestFrom('127.0.0.1', '198.51.100.1'), trustedProxies([]))).toBe('127.0.0.1');
  });
});

describe('a limit by address', () => {
  it('counts an IPv6 network as one, and IPv4 addresses each for itself, however they are written', () => {
    expect(limitedAs('2001:db8:1:2:3:4:5:6')).toBe(limitedAs('2001:db8:1:2:ffff::1'));
    expect(limitedAs('2001:db8:1:2::1')).not.toBe(limitedAs('2001:db8:1:3::1'));
    expect(limitedAs('[2001:db8:1:2::1]:4711')).toBe(limitedAs('2001:db8:1:2::2'));
    for (const text of ['::ffff:198.51.100.1', '198.51.100.1:4711']) expect(limitedAs(text)).toBe('198.51.100.1');
    expect(limitedAs('198.51.100.1')).not.toBe(limitedAs('198.51.100.2'));
    for (const nothing of ['unknown', undefined]) expect(limitedAs(nothing)).toBe('unknown');
  });

  it('is not escaped by who has many: neither in a network of their own nor all over the world', async () => {
    const attempts = new Attempts();
    const refused = { code: 'rate_limited' };
    for (let guess = 0; guess < 10; guess++) await attempts.guess(`2001:db8::${guess}`, 'a@example.com');
    await expect(attempts.guess('2001:db8::ffff', 'A@example.com')).rejects.toMatchObject(refused);
    for (let guess = 0; guess < 90; guess++) await attempts.guess(`203.0.113.${guess}`, 'a@example.com');
    await expect(attempts.guess('203.0.113.200', 'a@example.com')).rejects.toMatchObject(refused);
    await attempts.guess('203.0.113.200', 'b@example.com');
    await attempts.forgive('203.0.113.200', 'a@example.com');
    await attempts.guess('203.0.113.201', 'a@example.com');
  });
});

describe('a daemon behind a proxy that it trusts', () => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    const env = { INSTAVM_SIGN_UP: 'open', INSTAVM_TRUSTED_PROXIES: '127.0.0.0/8, ::1' };
    daemon = await startTestDaemon({ vmm: 'fake', env });
  });
  afterAll(() => daemon.stop());

  it('lets no stranger use up the attempts of the others, whatever the stranger says about itself', async () => {
    const signIn = async (client: string, email: string, password: string): Promise<number> => {
      const headers = { ...OWN, 'x-forwarded-for': client };
      return (await new Browser(daemon).ask('POST', '/api/auth/sign-in', { email, password }, headers)).status;
    };
    const wanted = { email: 'ada@example.com', password: 'correct horse battery', name: 'Ada' };
    const made = { ...OWN, 'x-forwarded-for': '198.51.100.1' };
    expect((await new Browser(daemon).ask('POST', '/api/auth/sign-up', wanted, made)).status).toBe(200);
    const statuses: number[] = [];
    for (let guess = 0; guess < 11; guess++)
      statuses.push(await signIn(`10.9.8.${guess}, 203.0.113.7`, 'ada@example.com', `guess number ${guess}`));
    expect(statuses).toEqual([...Array<number>(10).fill(401), 429]);
    expect(await signIn('198.51.100.1', 'ada@example.com', wanted.password)).toBe(200);
  });

  it('tells the trail who it was, of requests and of WebSockets', async () => {
    const api = apiOf(daemon);
    const { body: key } = await api.json('POST', '/v1/api-keys/', {});
    await api.request('DELETE', `/v1/api-keys/${key.id}`);
    const headers = { 'x-api-key': key.api_key };
    await api.request('GET', '/v1/users/me', { headers: { ...headers, 'x-forwarded-for': '198.51.100.2' } });
    const url = `${daemon.baseUrl.replace('http', 'ws')}/v2/sandboxes/${crypto.randomUUID()}/exec`;
    const socket = new WebSocket(url, { headers: { ...headers, 'x-forwarded-for': '198.51.100.3' } });
    socket.on('error', () => {});
    await once(socket, 'unexpected-response');
    socket.terminate();
    const told = async () => (await api.request('GET', '/v1/audit/events?event_type=key.refused')).body.items;
    await expect
      .poll(async () => (await told()).map(({ source_ip }: { source_ip: string }) => source_ip))
      .toEqual(['198.51.100.3', '198.51.100.2']);
  });

  it('lets a crowd from everywhere wait for its turn, and turns the rest away', async () => {
    // So many that they come faster than they are served, also where they come slowly.
    const crowd = Array.from({ length: 60 }, (_, index) => {
      const headers = { ...OWN, 'x-forwarded-for': `203.0.113.${index + 100}` };
      const guess = { email: `nobody-${index}@example.com`, password: 'a wrong guess' };
      return new Browser(daemon).ask('POST', '/api/auth/sign-in', guess, headers);
    });
    const answers = (await Promise.all(crowd)).map(({ status, body }) => `${status} ${body.code}`);
    expect(new Set(answers)).toEqual(new Set(['401 sign_in_failed', '429 rate_limited']));
    expect(answers.filter((answer) => answer.startsWith('401')).length).toBeGreaterThan(20);
  });

  it('still makes links that sign in on its own machine alone', async () => {
    const api = apiOf(daemon);
    expect((await api.request('POST', '/api/auth/links')).status).toBe(201);
    const forwarded = { headers: { 'x-forwarded-for': '127.0.0.1' } };
    expect((await api.request('POST', '/api/auth/links', forwarded)).status).toBe(403);
  });
});

import type { LookupFunction } from 'node:net';
import { newLinkId } from '@instavm/core';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import WebSocket, { WebSocketServer } from 'ws';
import { type Answer, KEY, Stand, shareId } from './stand.ts';

/** getaddrinfo does not know names under localhost everywhere. */
const toLoopback: LookupFunction = (_host, _options, done) => done(null, [{ address: '127.0.0.1', family: 4 }]);

let stand: Stand;
let mine: string;
let other: string;
const HOUR = 3_600_000;

beforeAll(async () => {
  stand = await Stand.start();
  const tell = (request: import('node:http').IncomingMessage, response: import('node:http').ServerResponse): void => {
    response.setHeader('set-cookie', [
      'own=1; Path=/',
      'wide=1; Domain=preview.localhost; Path=/',
      '__Host-instavm_preview=stolen; Secure; Path=/',
      '__host-instavm_preview =stolen; Secure; Path=/',
      '=__Host-instavm_preview=stolen',
    ]);
    response.setHeader('instavm-preview', 'share_private');
    response.setHeader('alt-svc', 'h3=":443"');
    response.end(JSON.stringify({ url: request.url, headers: request.headers }));
  };
  mine = await stand.service('mine', tell, false);
  other = await stand.service('other', tell, false);
});
beforeEach(() => {
  stand.now = Date.now();
});
afterAll(() => stand.close());

const linkOf = (id: string, lifetime = HOUR, link = newLinkId()): string =>
  new URL(stand.proxy.signedUrlOf(id, link, new Date(stand.now + lifetime))).searchParams.get('instavm_token') ?? '';
const enter = async (id: string, lifetime = HOUR, link = newLinkId()): Promise<string> => {
  const answer = await stand.ask(id, `/?instavm_token=${linkOf(id, lifetime, link)}`);
  return (answer.headers['set-cookie']?.[0] ?? '').split(';')[0] ?? '';
};
const isRefused = (answer: Answer, id: string): void => {
  expect(answer).toMatchObject({ status: 302, headers: { 'instavm-preview': 'share_private' } });
  expect(answer.headers.location).toMatch(`https://${stand.authorityOf(id)}/.instavm/private`);
};

describe('a private share', () => {
  it('leads everyone without a right to a page that answers 200', async () => {
    isRefused(await stand.ask(mine, '/health'), mine);
    isRefused(await stand.ask(mine, '/', { method: 'POST', body: 'x' }), mine);
    const page = await stand.ask(mine, '/.instavm/private', { headers: { accept: 'text/html' } });
    expect(page).toMatchObject({
      status: 200,
      headers: { 'instavm-preview': 'share_private', 'cache-control': 'no-store' },
    });
    expect(page.body).toContain('This preview is private');
    const json = JSON.parse((await stand.ask(mine, '/.instavm/private')).body) as object;
    expect(json).toMatchObject({ code: 'unauthenticated' });
  });

  it('opens by its link, which becomes a cookie of this host alone', async () => {
    const token = linkOf(mine);
    const answer = await stand.ask(mine, `/a%20b?x=1&instavm_token=${token}&y=2`);
    expect(answer).toMatchObject({
      status: 302,
      headers: { location: `https://${stand.authorityOf(mine)}/a%20b?x=1&y=2`, 'referrer-policy': 'no-referrer' },
    });
    const [cookie = ''] = answer.headers['set-cookie'] ?? [];
    expect(cookie).toMatch(/^__Host-instavm_preview=[^;]+; Max-Age=\d+; Path=\/; Secure; HttpOnly; SameSite=Lax$/);
    expect(Number(/Max-Age=(\d+)/.exec(cookie)?.[1])).toBeLessThanOrEqual(3_600);

    const opened = await stand.ask(mine, '/a', { headers: { cookie: `one=1; ${cookie.split(';')[0]}; two=2` } });
    expect(opened.status).toBe(200);
    expect((JSON.parse(opened.body) as { headers: object }).headers).toMatchObject({ cookie: 'one=1; two=2' });
    const only = await stand.ask(mine, '/a', { headers: { cookie: cookie.split(';')[0] } });
    expect((JSON.parse(only.body) as { headers: object }).headers).not.toHaveProperty('cookie');
  });

  it('does not open any more by a link that was taken back, nor by its cookie, and by others it does', async () => {
    const [link, kept] = [newLinkId(), newLinkId()];
    const [cookie, other] = [await enter(mine, HOUR, link), await enter(mine, HOUR, kept)];
    stand.revoked.add(link);
    const again = await stand.ask(mine, `/?instavm_token=${linkOf(mine, HOUR, link)}`);
    expect(again.headers.location).toMatch(/\/\.instavm\/private\?link_expired$/);
    isRefused(await stand.ask(mine, '/', { headers: { 'X-Instavm-Token': linkOf(mine, HOUR, link) } }), mine);
    isRefused(await stand.ask(mine, '/', { headers: { cookie } }), mine);
    expect((await stand.ask(mine, '/', { headers: { cookie: other } })).status).toBe(200);
    expect((await stand.ask(mine, '/', { headers: { cookie: `${cookie}; ${other}` } })).status).toBe(200);
  });

  it('does not become a redirect to somewhere else', async () => {
    const answer = await stand.ask(mine, `//evil.example/?instavm_token=${linkOf(mine)}`);
    expect(answer.headers.location).toBe(`https://${stand.authorityOf(mine)}//evil.example/`);
  });

  it('takes no token or cookie of another share, of another kind, changed, or ended', async () => {
    const link = linkOf(mine);
    const cookie = await enter(mine);
    const value = cookie.slice(cookie.indexOf('=') + 1);
    isRefused(await stand.ask(other, `/?instavm_token=${link}`), other);
    isRefused(await stand.ask(mine, `/?instavm_token=${value}`), mine);
    isRefused(await stand.ask(mine, `/?instavm_token=z${link}`), mine);
    isRefused(await stand.ask(mine, `/?instavm_token=${newLinkId()}${link.slice(link.indexOf('.'))}`), mine);
    isRefused(await stand.ask(mine, `/?instavm_token=${link.slice(link.indexOf('.') + 1)}`), mine);
    isRefused(await stand.ask(mine, `/?instavm_token=${link.slice(0, -1)}`), mine);
    isRefused(await stand.ask(mine, '/?instavm_token='), mine);
    isRefused(await stand.ask(other, '/', { headers: { cookie } }), other);
    isRefused(await stand.ask(mine, '/', { headers: { cookie: `__Host-instavm_preview=${link}` } }), mine);
    expect(await stand.ask(mine, '/', { headers: { cookie } })).toMatchObject({ status: 200 });
    stand.now += HOUR + 1_000;
    const expired = await stand.ask(mine, `/?instavm_token=${link}`);
    expect(expired.headers.location).toMatch(/\/\.instavm\/private\?link_expired$/);
    isRefused(await stand.ask(mine, '/', { headers: { cookie } }), mine);
  });

  it('keeps its cookie for a day at most, however long the link is good', async () => {
    const cookie = await enter(mine, 30 * 24 * HOUR);
    stand.now += 23 * HOUR;
    expect((await stand.ask(mine, '/', { headers: { cookie } })).status).toBe(200);
    stand.now += 2 * HOUR;
    isRefused(await stand.ask(mine, '/', { headers: { cookie } }), mine);
  });

  it('opens to programs by a header, which the service never sees', async () => {
    for (const headers of [
      { 'X-Instavm-Token': linkOf(mine) },
      { Authorization: `Bearer ${KEY}` },
      { 'X-API-Key': KEY },
    ] as Record<string, string>[]) {
      const answer = await stand.ask(mine, '/', { headers });
      expect(answer.status).toBe(200);
      for (const name of Object.keys(headers)) {
        expect((JSON.parse(answer.body) as { headers: object }).headers).not.toHaveProperty(name.toLowerCase());
      }
    }
    isRefused(await stand.ask(mine, '/', { headers: { 'X-API-Key': 'instavm_sk_other' } }), mine);
    isRefused(await stand.ask(mine, '/', { headers: { 'X-Instavm-Token': 'x' } }), mine);
  });

  it('answers its own page with a redirect to the service once it is open', async () => {
    const cookie = await enter(mine);
    const answer = await stand.ask(mine, '/.instavm/private', { headers: { cookie } });
    expect(answer).toMatchObject({ status: 302, headers: { location: `https://${stand.authorityOf(mine)}/` } });
  });

  it('does not open to the page of another share through its visitor', async () => {
    const cookie = await enter(mine);
    const evil = `https://${stand.authorityOf(other)}`;
    const own = `https://${stand.authorityOf(mine)}`;
    isRefused(await stand.ask(mine, '/', { headers: { cookie, origin: evil } }), mine);
    isRefused(
      await stand.ask(mine, '/', { headers: { cookie, 'sec-fetch-site': 'same-site', 'sec-fetch-mode': 'no-cors' } }),
      mine,
    );
    expect(
      (
        await stand.ask(mine, '/', {
          method: 'POST',
          headers: { cookie, origin: own, 'sec-fetch-site': 'same-origin' },
        })
      ).status,
    ).toBe(200);
    const navigation = { cookie, 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate' };
    expect((await stand.ask(mine, '/', { headers: navigation })).status).toBe(200);
  });
});

describe('a service', () => {
  it('cannot set our cookie, a cookie for all shares, our header or another server', async () => {
    const cookie = await enter(mine);
    const { headers } = await stand.ask(mine, '/', { headers: { cookie } });
    expect(headers['set-cookie']).toEqual(['own=1; Path=/', 'wide=1; Path=/']);
    expect(headers).not.toHaveProperty('instavm-preview');
    expect(headers).not.toHaveProperty('alt-svc');
  });

  it('behind a public share sees neither tokens nor keys', async () => {
    const open = await stand.service('open', (request, response) =>
      response.end(JSON.stringify({ url: request.url, headers: request.headers })),
    );
    const answer = await stand.ask(open, `/x?instavm_token=bad&a=1`, {
      headers: {
        authorization: `bearer ${KEY}`,
        'x-api-key': KEY,
        'x-instavm-token': 'y',
        cookie: '__Host-instavm_preview=z',
      },
    });
    expect(answer.status).toBe(200);
    const seen = JSON.parse(answer.body) as { url: string; headers: Record<string, string> };
    expect(seen.url).toBe('/x?a=1');
    expect(answer.body).not.toMatch(/instavm_(sk|preview=)/);
    const own = await stand.ask(open, '/', {
      headers: { authorization: 'Bearer of-the-app', 'x-api-key': 'of-the-app' },
    });
    expect((JSON.parse(own.body) as { headers: object }).headers).toMatchObject({
      authorization: 'Bearer of-the-app',
      'x-api-key': 'of-the-app',
    });
  });
});

it('opens a WebSocket by cookie from its own page only', async () => {
  const server = new WebSocketServer({ host: '127.0.0.1', port: 0, handleProtocols: () => 'chat' });
  await new Promise((resolve) => server.once('listening', resolve));
  const id = stand.share('socket', (server.address() as import('node:net').AddressInfo).port, false);
  const cookie = await enter(id);
  const open = (headers: Record<string, string>): Promise<number> => {
    const socket = new WebSocket(`wss://${stand.authorityOf(id)}/`, {
      ca: stand.ca,
      headers,
      servername: stand.hostOf(id),
      lookup: toLoopback,
    } as WebSocket.ClientOptions);
    return new Promise((resolve, reject) => {
      socket.on('open', () => {
        socket.terminate();
        resolve(101);
      });
      socket.on('unexpected-response', (request, response) => {
        request.destroy();
        resolve(response.statusCode ?? 0);
      });
      socket.on('error', reject);
    });
  };
  expect(await open({})).toBe(302);
  expect(await open({ cookie, origin: `https://${stand.authorityOf(shareId('other'))}` })).toBe(302);
  expect(await open({ cookie, origin: `https://${stand.authorityOf(id)}` })).toBe(101);
  expect(await open({ 'x-api-key': KEY })).toBe(101);
  server.close();
});

/** People signing in: what it takes, what a browser gets, and what pages of others cannot do with it. */
import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { Browser, linkToken, OWN } from './browser.ts';

const PASSWORD = 'correct horse battery';

const nameAndValue = (cookie: string): [name: string, value: string] => {
  const [, name = '', value = ''] = /^([^=]+)=(.*)$/.exec(cookie) ?? [];
  return [name, value];
};

describe('a daemon where anyone may sign up', () => {
  let daemon: TestDaemon;
  let ada: Browser;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake', env: { INSTAVM_SIGN_UP: 'open' } });
    ada = new Browser(daemon);
    const answer = await ada.ask('POST', '/api/auth/sign-up', {
      email: 'Ada@example.com',
      password: PASSWORD,
      name: 'Ada',
    });
    expect(answer).toMatchObject({
      status: 200,
      body: { account: { email: 'ada@example.com', is_administrator: false } },
    });
  });
  afterAll(() => daemon.stop());

  const signIn = (browser: Browser, email: string, password: string) =>
    browser.ask('POST', '/api/auth/sign-in', { email, password });

  type Opened = { readonly sandboxId: string; readonly ptyId: string };
  const socketUrl = ({ sandboxId, ptyId }: Opened): string =>
    `${daemon.baseUrl.replace('http', 'ws')}/v1/sessions/${sandboxId}/pty/${ptyId}/connect`;
  /** A terminal and a followed log, open when this resolves. @returns how each ends */
  const open = async (browser: Browser, opened: Opened): Promise<Promise<unknown>[]> => {
    const { sandboxId, ptyId } = opened;
    const { token } = (await browser.ask('POST', `/v1/sessions/${sandboxId}/pty/sessions/${ptyId}/token`, {})).body;
    const socket = new WebSocket(`${socketUrl(opened)}?token=${token}`);
    const terminal = once(socket, 'close').then(([code]) => code as number);
    await once(socket, 'message');
    const headers = { ...OWN, cookie: browser.cookie };
    const followed = await fetch(`${daemon.baseUrl}/v1/audit/events?follow=true`, { headers });
    const stream = followed.text().then(
      () => 'ended',
      (error: Error) => error.name,
    );
    return [terminal, stream];
  };

  it('lets a page of ours use the API of the account, and of that alone', async () => {
    const made = await ada.ask('POST', '/v2/sandboxes', {});
    expect(made.status).toBe(201);
    const listed = (await ada.ask('GET', '/v2/sandboxes')).body.sandboxes;
    expect(listed.map(({ id }: { id: string }) => id)).toEqual([made.body.id]);
    const administrator = new Browser(daemon);
    await administrator.signInByLink();
    expect((await administrator.ask('GET', '/v2/sandboxes')).body.sandboxes).toEqual([]);
    expect((await administrator.ask('GET', `/v2/sandboxes/${made.body.id}`)).status).toBe(404);
    await ada.ask('DELETE', `/v2/sandboxes/${made.body.id}`);
  });

  it('gives an account that somebody made the credit of every account', async () => {
    const { body } = await ada.ask('GET', '/v1/credits/summary?period=current_month');
    expect(body.dollars).toMatchObject({ allocated: 50 });
  });

  it('gives the browser a cookie that neither scripts nor other sites get to use', async () => {
    const browser = new Browser(daemon);
    await signIn(browser, 'ada@example.com', PASSWORD);
    const [cookie = ''] = browser.setCookies;
    expect(cookie).toMatch(/^instavm-[0-9a-f]{8}=/);
    for (const attribute of ['HttpOnly', 'SameSite=Strict', 'Path=/']) expect(cookie).toContain(attribute);
    expect(cookie).not.toContain('Domain');
  });

  it('refuses what a page of someone else can send, cookie or not', async () => {
    const own = new URL(daemon.baseUrl).host;
    const foreign: Record<string, string>[] = [
      {},
      { ...OWN, origin: 'https://evil.example' },
      { ...OWN, origin: 'null' },
      { ...OWN, origin: `https://${own}` },
      { ...OWN, 'sec-fetch-site': 'cross-site' },
      { ...OWN, 'sec-fetch-site': 'same-site' },
      { ...OWN, 'sec-fetch-site': 'none' },
    ];
    for (const headers of foreign) {
      for (const [method, path, json] of [
        ['GET', '/v2/sandboxes', undefined],
        ['POST', '/v2/sandboxes', {}],
        ['POST', '/execute', { session_id: 'x', command: 'y' }],
        ['POST', '/api/auth/sign-out', undefined],
        ['POST', '/api/auth/sign-in', { email: 'ada@example.com', password: PASSWORD }],
        ['GET', '/api/auth/session', undefined],
      ] as const) {
        const refused = await ada.ask(method, path, json, headers);
        expect([refused.status, refused.body.code], `${method} ${path} ${JSON.stringify(headers)}`).toEqual([
          403,
          'cross_origin',
        ]);
      }
    }
    expect((await ada.ask('GET', '/v2/sandboxes', undefined, { ...OWN, origin: daemon.baseUrl })).status).toBe(200);
  });

  it('answers no preflight, so that no other page may send the header', async () => {
    const preflight = await ada.ask('OPTIONS', '/v2/sandboxes', undefined, {
      origin: 'https://evil.example',
      'access-control-request-method': 'GET',
      'access-control-request-headers': 'x-instavm-csrf',
    });
    expect(preflight.headers.get('access-control-allow-origin')).toBeNull();
    expect(preflight.headers.get('access-control-allow-headers')).toBeNull();
  });

  it('judges an API key that is sent, even beside a cookie', async () => {
    expect((await ada.ask('GET', '/v2/sandboxes', undefined, { ...OWN, 'x-api-key': 'wrong' })).status).toBe(401);
  });

  it('adopts no session that was there before, and ends it', async () => {
    const browser = new Browser(daemon);
    await signIn(browser, 'ada@example.com', PASSWORD);
    const before = browser.cookie;
    await signIn(browser, 'ada@example.com', PASSWORD);
    expect(browser.cookie).not.toBe(before);
    const thief = new Browser(daemon);
    thief.plant(...nameAndValue(before));
    expect((await thief.ask('GET', '/v2/sandboxes')).status).toBe(401);

    const victim = new Browser(daemon);
    victim.plant(nameAndValue(before)[0], 'chosen-by-an-attacker.c2lnbmF0dXJl');
    await signIn(victim, 'ada@example.com', PASSWORD);
    expect(victim.cookie).not.toContain('chosen');
  });

  it('ends the session on the server when someone signs out', async () => {
    const browser = new Browser(daemon);
    await signIn(browser, 'ada@example.com', PASSWORD);
    const cookie = browser.cookie;
    await browser.ask('POST', '/api/auth/sign-out');
    expect(browser.cookie).toBe('');
    browser.plant(...nameAndValue(cookie));
    expect((await browser.ask('GET', '/v2/sandboxes')).status).toBe(401);
    expect((await browser.ask('GET', '/api/auth/session')).body).toMatchObject({ account: null, sign_up: 'open' });
  });

  it('signs other browsers out when the password is changed', async () => {
    const [one, other] = [new Browser(daemon), new Browser(daemon)];
    await one.ask('POST', '/api/auth/sign-up', { email: 'eve@example.com', password: PASSWORD, name: 'Eve' });
    await signIn(other, 'eve@example.com', PASSWORD);
    const wrong = await one.ask('POST', '/api/auth/password', { present: 'not that one', next: 'another long one' });
    expect(wrong.body.code).toBe('sign_in_failed');
    const changed = await one.ask('POST', '/api/auth/password', { present: PASSWORD, next: 'another long one' });
    expect(changed.status).toBe(200);
    expect((await one.ask('GET', '/v2/sandboxes')).status).toBe(200);
    expect((await other.ask('GET', '/v2/sandboxes')).status).toBe(401);
    expect((await signIn(other, 'eve@example.com', PASSWORD)).status).toBe(401);
  });

  it('cuts what a browser has open when it is signed out, or the password is changed elsewhere, and nothing else', async () => {
    const email = 'cut@example.com';
    const [first, second] = [new Browser(daemon), new Browser(daemon)];
    await first.ask('POST', '/api/auth/sign-up', { email, password: PASSWORD, name: 'Cut' });
    await signIn(second, email, PASSWORD);
    const { id } = (await first.ask('POST', '/v2/sandboxes', {})).body;
    const { body: pty } = await first.ask('POST', `/v1/sessions/${id}/pty/sessions`, { command: 'cat' });
    const opened = { sandboxId: id, ptyId: pty.session_id };
    const unused = await first.ask('POST', `/v1/sessions/${id}/pty/sessions/${pty.session_id}/token`, {});
    const [firsts, seconds] = [await open(first, opened), await open(second, opened)];
    await first.ask('POST', '/api/auth/sign-out');
    expect(await Promise.all(firsts)).toEqual([4401, 'TypeError']);
    const late = new WebSocket(`${socketUrl(opened)}?token=${unused.body.token}`);
    expect((await once(late, 'close'))[0]).toBe(4401);
    expect(await Promise.race([...seconds, 'still open'])).toBe('still open');
    await signIn(first, email, PASSWORD);
    await first.ask('POST', '/api/auth/password', { present: PASSWORD, next: 'another long one' });
    expect(await Promise.all(seconds)).toEqual([4401, 'TypeError']);
    await first.ask('DELETE', `/v2/sandboxes/${id}`);
  });

  it('cuts what a browser has open when its sign-in expires, and not what one has that was renewed', async () => {
    const email = 'expiry@example.com';
    const [renewed, left] = [new Browser(daemon), new Browser(daemon)];
    await renewed.ask('POST', '/api/auth/sign-up', { email, password: PASSWORD, name: 'Expiry' });
    await signIn(left, email, PASSWORD);
    const { id } = (await left.ask('POST', '/v2/sandboxes', {})).body;
    const { body: pty } = await left.ask('POST', `/v1/sessions/${id}/pty/sessions`, { command: 'cat' });
    const opened = { sandboxId: id, ptyId: pty.session_id };
    const beganAt = performance.now();
    const before = await open(renewed, opened);
    const openingMs = performance.now() - beganAt;
    const database = new DatabaseSync(join(daemon.dataDirectory, 'instavm.db'), { timeout: 60_000 });
    // Time enough to open that twice more, and to renew one of them.
    const soon = new Date(Date.now() + 3_000 + 20 * openingMs).toISOString();
    const ofAccount = 'account_id = (SELECT id FROM accounts WHERE email = ?)';
    database.prepare(`UPDATE sign_ins SET expires_at = ? WHERE ${ofAccount}`).run(soon, email);
    database.close();
    const during = [...(await open(renewed, opened)), ...(await open(left, opened))];
    expect((await renewed.ask('GET', '/api/auth/session')).body.account.email).toBe(email);
    expect(await Promise.all(during.slice(2))).toEqual([4401, 'TypeError']);
    expect((await left.ask('GET', '/v2/sandboxes')).status).toBe(401);
    expect(await Promise.race([...before, ...during.slice(0, 2), 'still open'])).toBe('still open');
    await renewed.ask('DELETE', `/v2/sandboxes/${id}`);
    await renewed.ask('POST', '/api/auth/sign-out');
    expect(await Promise.all(before.slice(1))).toEqual(['TypeError']);
  });

  it('tells the account who signed in and out, and who could not', async () => {
    const email = 'told@example.com';
    const [browser, other] = [new Browser(daemon), new Browser(daemon)];
    await browser.ask('POST', '/api/auth/sign-up', { email, password: PASSWORD, name: 'Told' });
    for (let count = 0; count < 3; count++) await signIn(other, email, 'a wrong guess');
    await signIn(other, email, PASSWORD);
    await other.ask('POST', '/api/auth/sign-out');
    const events = async () => (await browser.ask('GET', '/v1/audit/events?event_group=auth')).body.items;
    await expect.poll(events).toHaveLength(4);
    expect((await events()).reverse()).toMatchObject([
      { event_type: 'auth.signed_up', actor_type: 'user', actor_name: email, source_ip: '127.0.0.1' },
      // Three of them so far; how many more is told within a minute.
      { event_type: 'auth.sign_in_failed', status: 'denied', actor_type: 'anonymous' },
      { event_type: 'auth.signed_in', actor_name: email, event_payload: { method: 'password' } },
      { event_type: 'auth.signed_out' },
    ]);
    const administrator = new Browser(daemon);
    await signIn(administrator, 'nobody-here@example.com', PASSWORD);
    await administrator.signInByLink();
    const told = async () =>
      (await administrator.ask('GET', '/v1/audit/events?event_type=auth.sign_in_failed')).body.items;
    await expect.poll(told).toMatchObject([{ event_payload: { is_account: false } }]);
    expect(JSON.stringify(await told())).not.toContain('nobody-here');
  });

  it('says the same of an unknown address and a wrong password', async () => {
    const [unknown, wrong] = [new Browser(daemon), new Browser(daemon)];
    const strangers = await signIn(unknown, 'nobody@example.com', PASSWORD);
    const wrongs = await signIn(wrong, 'ada@example.com', 'wrong wrong wrong');
    const [a, b] = [strangers, wrongs].map(({ status, body: { request_id: _, ...body } }) => ({ status, body }));
    expect(a).toEqual(b);
    expect(a?.status).toBe(401);
    expect(unknown.setCookies).toEqual([]);
  });

  it('refuses a short password and an address that is taken', async () => {
    const browser = new Browser(daemon);
    const short = await browser.ask('POST', '/api/auth/sign-up', {
      email: 'b@example.com',
      password: 'short',
      name: 'B',
    });
    expect([short.status, short.body.code]).toEqual([422, 'invalid_argument']);
    const taken = await browser.ask('POST', '/api/auth/sign-up', {
      email: 'ADA@example.com',
      password: PASSWORD,
      name: 'Other',
    });
    expect([taken.status, taken.body.code]).toEqual([409, 'email_taken']);
  });

  it('stops someone who guesses, and not the others', async () => {
    const guesser = new Browser(daemon);
    const answers: number[] = [];
    for (let guess = 0; guess < 12; guess += 1)
      answers.push((await signIn(guesser, 'guessed@example.com', `guess number ${guess}`)).status);
    expect(answers.slice(0, 10)).toEqual(Array(10).fill(401));
    expect(answers.slice(10)).toEqual([429, 429]);
    expect((await signIn(guesser, 'ada@example.com', PASSWORD)).status).toBe(200);
  });

  it('keeps passwords, cookies and links out of its log and its database', async () => {
    const token = await linkToken(daemon);
    const log = daemon.log();
    for (const secret of [PASSWORD, nameAndValue(ada.cookie)[1], token]) expect(log).not.toContain(secret);
    for (const name of ['instavm.db', 'instavm.db-wal']) {
      const stored = await readFile(join(daemon.dataDirectory, name));
      for (const secret of [PASSWORD, decodeURIComponent(nameAndValue(ada.cookie)[1]), token])
        expect(stored.includes(secret), name).toBe(false);
    }
  });

  it('lets a one-time link sign in one browser, once', async () => {
    const token = await linkToken(daemon);
    const [first, second] = [new Browser(daemon), new Browser(daemon)];
    const both = await Promise.all([
      first.ask('POST', '/api/auth/link', { token }),
      second.ask('POST', '/api/auth/link', { token }),
    ]);
    expect(both.map(({ status }) => status).sort()).toEqual([200, 401]);
    expect(both.find(({ status }) => status === 200)?.body.account).toMatchObject({ is_administrator: true });
  });

  it('gives no link to somebody for whom a proxy asks', async () => {
    const headers = { 'x-api-key': daemon.apiKey, 'x-forwarded-for': '203.0.113.7' };
    for (let round = 0; round < 2; round++) {
      const refused = await new Browser(daemon).ask('POST', '/api/auth/links', undefined, headers);
      expect([refused.status, refused.body.code]).toEqual([403, 'permission_denied']);
    }
    // Told once, that a proxy which nobody named makes everybody share one limit.
    const told = () => daemon.log().split('name it in INSTAVM_TRUSTED_PROXIES').length - 1;
    await expect.poll(told).toBe(1);
  });

  it('gives links and invitations to the administrator alone', async () => {
    for (const path of ['/api/auth/links', '/api/auth/invitations']) {
      const refused = await ada.ask('POST', path);
      expect([refused.status, refused.body.code]).toEqual([403, 'permission_denied']);
    }
  });
});

describe('a daemon behind TLS where an invitation is needed', () => {
  let daemon: TestDaemon;
  const PUBLIC = { ...OWN, host: 'instavm.example.com', origin: 'https://instavm.example.com' };
  beforeAll(async () => {
    const env = { INSTAVM_SIGN_UP: 'invitation', INSTAVM_PUBLIC_URL: 'https://instavm.example.com' };
    daemon = await startTestDaemon({ vmm: 'fake', env });
  });
  afterAll(() => daemon.stop());

  /** fetch sets Host itself. */
  const ask = async (path: string, json: unknown, headers: Record<string, string>) => {
    const { request } = await import('node:http');
    return new Promise<{ status: number; body: Record<string, never>; setCookies: string[] }>((resolve, reject) => {
      const outgoing = request(daemon.baseUrl + path, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
      });
      outgoing.on('error', reject).on('response', async (answer) => {
        let text = '';
        for await (const chunk of answer) text += chunk;
        resolve({
          status: answer.statusCode ?? 0,
          body: JSON.parse(text),
          setCookies: answer.headers['set-cookie'] ?? [],
        });
      });
      outgoing.end(JSON.stringify(json));
    });
  };

  it('marks the cookie Secure and binds it to its host', async () => {
    const invited = await ask('/api/auth/invitations', {}, { 'x-api-key': daemon.apiKey });
    expect(invited.status).toBe(201);
    const { hash, origin, pathname } = new URL(invited.body.url ?? '');
    expect([origin, pathname]).toEqual(['https://instavm.example.com', '/dashboard/sign-up']);
    const invitation = new URLSearchParams(hash.slice(1)).get('invitation');
    const wanted = { email: 'guest@example.com', password: PASSWORD, name: 'Guest' };

    const uninvited = await ask('/api/auth/sign-up', wanted, PUBLIC);
    expect([uninvited.status, uninvited.body.code]).toEqual([403, 'invitation_invalid']);
    // More than anyone may make accounts where no invitation is needed.
    for (let forgery = 0; forgery < 21; forgery++) {
      const forged = await ask('/api/auth/sign-up', { ...wanted, invitation: `made-up-${forgery}` }, PUBLIC);
      expect([forged.status, forged.body.code]).toEqual([403, 'invitation_invalid']);
    }
    const short = await ask('/api/auth/sign-up', { ...wanted, password: 'short', invitation }, PUBLIC);
    expect([short.status, short.body.code]).toEqual([422, 'invalid_argument']);
    // What came to nothing has not used it up.
    const entered = await ask('/api/auth/sign-up', { ...wanted, invitation }, PUBLIC);
    expect(entered.status).toBe(200);
    expect(entered.setCookies[0]).toMatch(/^__Host-instavm-[0-9a-f]{8}=.*; Secure/);
    const again = await ask('/api/auth/sign-up', { ...wanted, email: 'second@example.com', invitation }, PUBLIC);
    expect([again.status, again.body.code]).toEqual([403, 'invitation_invalid']);
  });

  it('takes no browser that comes under another name, as after DNS rebinding', async () => {
    for (const host of ['evil.example', '127.0.0.1', 'instavm.example.com.evil.example']) {
      const refused = await ask('/api/auth/link', { token: 'x' }, { ...OWN, host, origin: `http://${host}` });
      expect([refused.status, refused.body.code]).toEqual([403, 'cross_origin']);
    }
  });
});

describe('a daemon as it comes', () => {
  let daemon: TestDaemon;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
  });
  afterAll(() => daemon.stop());

  it('lets nobody sign up', async () => {
    const browser = new Browser(daemon);
    const wanted = { email: 'a@example.com', password: PASSWORD, name: 'A' };
    const refused = await browser.ask('POST', '/api/auth/sign-up', wanted);
    expect([refused.status, refused.body.code]).toEqual([403, 'sign_up_closed']);
    const invited = await browser.ask('POST', '/api/auth/invitations', {}, { 'x-api-key': daemon.apiKey });
    expect([invited.status, invited.body.code]).toEqual([403, 'sign_up_closed']);
  });

  it('keeps whoever is signed in signed in when it is started again', async () => {
    const browser = new Browser(daemon);
    await browser.signInByLink();
    await daemon.crash();
    daemon = await startTestDaemon({ vmm: 'fake', dataDirectory: daemon.dataDirectory });
    const again = new Browser(daemon);
    again.plant(...nameAndValue(browser.cookie));
    expect((await again.ask('GET', '/api/auth/session')).body.account).toMatchObject({ email: 'admin@localhost' });
  });

  it('signs nobody out of another daemon of the host, with which it shares the cookies of a browser', async () => {
    const other = await startTestDaemon({ vmm: 'fake' });
    try {
      const [here, there] = [new Browser(daemon), new Browser(other)];
      await here.signInByLink();
      await there.signInByLink();
      const cookies = [here, there].map((browser) => nameAndValue(browser.cookie));
      for (const cookie of cookies) for (const browser of [here, there]) browser.plant(...cookie);
      expect(new Set(cookies.map(([name]) => name)).size).toBe(2);
      await there.ask('POST', '/api/auth/sign-out');
      expect([here, there].map((browser) => browser.cookie.split('; ').length)).toEqual([2, 1]);
      expect((await here.ask('GET', '/v2/sandboxes')).status).toBe(200);
      expect((await there.ask('GET', '/v2/sandboxes')).status).toBe(401);
    } finally {
      await other.stop();
    }
  });

  it('takes nobody for signed in whose host name it does not know', async () => {
    const { request } = await import('node:http');
    const status = await new Promise((resolve) => {
      const headers = { ...OWN, host: 'evil.example' };
      request(`${daemon.baseUrl}/api/auth/session`, { headers }, (answer) => resolve(answer.statusCode)).end();
    });
    expect(status).toBe(403);
  });
});

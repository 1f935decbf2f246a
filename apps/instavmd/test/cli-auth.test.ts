/** The login of command lines (contract §12.1): who gets a key, and who does not. */
import { createHash, randomBytes } from 'node:crypto';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Pairings } from '../src/sign-in/pairings.ts';
import { apiOf } from './api.ts';
import { Browser } from './browser.ts';

const verifierOf = (): string => randomBytes(32).toString('base64url');
const challengeOf = (verifier: string): string => createHash('sha256').update(verifier).digest('base64url');

describe('the login of a command line', () => {
  let daemon: TestDaemon;
  let browser: Browser;
  beforeAll(async () => {
    daemon = await startTestDaemon({ vmm: 'fake' });
    browser = new Browser(daemon);
    await browser.signInByLink();
  });
  afterAll(() => daemon.stop());

  const stranger = () => new Browser(daemon);
  const start = (fields: object = {}) =>
    stranger().ask(
      'POST',
      '/api/cli-auth/start',
      {
        state: 's'.repeat(43),
        code_challenge: challengeOf('v'.repeat(43)),
        code_challenge_method: 'S256',
        redirect_uri: 'http://127.0.0.1:4321/callback',
        cli_version: '0.26.1',
        hostname: 'laptop',
        ...fields,
      },
      {},
    );
  const exchange = (json: object) => stranger().ask('POST', '/api/cli-auth/exchange', json, {});
  const answer = (id: string, approve: boolean, asker = browser) =>
    asker.ask('POST', `/api/cli-auth/pairings/${id}`, { approve });

  async function approved(verifier: string) {
    const { body } = await start({ code_challenge: challengeOf(verifier) });
    const url = new URL((await answer(body.pairing_id, true)).body.redirect_url);
    return { pairing_id: body.pairing_id as string, code: url.searchParams.get('code') ?? '', url };
  }

  it('shows a person no name that could pass for another, or for more of the sentence', async () => {
    const { body } = await start({ hostname: 'lap\u202etop\u001b[2J\n', cli_version: '\u2066' });
    const shown = await browser.ask('GET', `/api/cli-auth/pairings/${body.pairing_id}`);
    expect(shown.body).toMatchObject({ hostname: 'laptop[2J', cli_version: null });
  });

  it('ends with a key of the account that said yes', async () => {
    const verifier = verifierOf();
    const started = await start({ code_challenge: challengeOf(verifier) });
    const id = started.body.pairing_id;
    expect(started.body.login_url).toBe(`${daemon.baseUrl}/dashboard/cli-login?pairing=${id}`);
    const shown = await browser.ask('GET', `/api/cli-auth/pairings/${id}`);
    expect(shown.body).toMatchObject({ hostname: 'laptop', cli_version: '0.26.1' });

    const { redirect_url } = (await answer(id, true)).body;
    const url = new URL(redirect_url);
    expect(`${url.origin}${url.pathname}`).toBe('http://127.0.0.1:4321/callback');
    expect(url.searchParams.get('state')).toBe('s'.repeat(43));
    const code = url.searchParams.get('code');
    const given = await exchange({ pairing_id: id, code, code_verifier: verifier });
    expect(given).toMatchObject({ status: 200, body: { user: { email: 'admin@localhost' } } });
    const whoami = await apiOf(daemon).request('GET', '/v1/users/me', { headers: { 'x-api-key': given.body.api_key } });
    expect(whoami.body.email).toBe('admin@localhost');
  });

  it('gives a code to a program on this machine, and to no other address', async () => {
    for (const uri of ['http://127.0.0.1:1/callback', 'http://[::1]:65535/callback', 'http://localhost:80/callback'])
      expect((await start({ redirect_uri: uri })).status, uri).toBe(200);
    for (const uri of [
      'https://127.0.0.1:4321/callback',
      'http://127.0.0.1:4321/',
      'http://127.0.0.1:4321/callback/../elsewhere',
      'http://127.0.0.1:4321/callback?next=https://evil.example',
      'http://127.0.0.1:4321/callback#x',
      'http://127.0.0.1/callback',
      'http://127.0.0.1:0/callback',
      'http://127.0.0.1:65536/callback',
      'http://127.0.0.1:4321@evil.example/callback',
      'http://evil@127.0.0.1:4321/callback',
      'http://127.0.0.1.evil.example:4321/callback',
      'http://localhost.evil.example:4321/callback',
      'http://127.0.0.2:4321/callback',
      'http://2130706433:4321/callback',
      'http://evil.example/callback',
      '//127.0.0.1:4321/callback',
      'javascript:alert(1)//127.0.0.1:4321/callback',
      '',
    ])
      expect((await start({ redirect_uri: uri })).body.code, uri).toBe('invalid_argument');
  });

  it('needs PKCE with S256', async () => {
    for (const fields of [
      { code_challenge: undefined },
      { code_challenge: 'short' },
      { code_challenge_method: 'plain' },
      { code_challenge_method: undefined },
    ])
      expect((await start(fields)).status).toBe(422);
  });

  it('takes a code once, and only with the verifier of who started it', async () => {
    const verifier = verifierOf();
    const first = await approved(verifier);
    const request = { pairing_id: first.pairing_id, code: first.code, code_verifier: verifier };
    expect((await exchange(request)).status).toBe(200);
    expect((await exchange(request)).body.code).toBe('pairing_not_found');

    const second = await approved(verifier);
    const other = { pairing_id: second.pairing_id, code: second.code, code_verifier: verifierOf() };
    expect((await exchange(other)).body.code).toBe('sign_in_failed');
    // A wrong attempt was the last.
    expect((await exchange({ ...other, code_verifier: verifier })).body.code).toBe('pairing_not_found');

    const [third, fourth] = [await approved(verifier), await approved(verifier)];
    const mixed = { pairing_id: third.pairing_id, code: fourth.code, code_verifier: verifier };
    expect((await exchange(mixed)).body.code).toBe('sign_in_failed');
  });

  it('gives nothing before someone said yes, and nothing when they said no', async () => {
    const verifier = verifierOf();
    const { body } = await start({ code_challenge: challengeOf(verifier) });
    const early = { pairing_id: body.pairing_id, code: 'guess', code_verifier: verifier };
    expect((await exchange(early)).body.code).toBe('pairing_not_found');
    const url = new URL((await answer(body.pairing_id, false)).body.redirect_url);
    expect(url.searchParams.get('code')).toBeNull();
    expect(url.searchParams.get('error')).toBe('access_denied');
    expect((await answer(body.pairing_id, true)).body.code).toBe('pairing_not_found');
  });

  it('is answered only by someone who is signed in, on a page of ours, once', async () => {
    const { body } = await start();
    const id = body.pairing_id;
    expect((await answer(id, true, stranger())).status).toBe(401);
    const elsewhere = { 'x-instavm-csrf': '1', origin: 'https://evil.example' };
    const forged = await browser.ask('POST', `/api/cli-auth/pairings/${id}`, { approve: true }, elsewhere);
    expect([forged.status, forged.body.code]).toEqual([403, 'cross_origin']);
    expect((await answer(id, true)).status).toBe(200);
    expect((await answer(id, true)).body.code).toBe('pairing_not_found');
  });
});

describe('pairings', () => {
  const wanted = {
    state: 'state',
    codeChallenge: challengeOf('v'.repeat(43)),
    redirectUri: 'http://127.0.0.1:9/callback',
    hostname: 'here',
    cliVersion: null,
  };

  it('are too old after five minutes, and their codes after one', () => {
    let now = 0;
    const pairings = new Pairings(() => now);
    const { id } = pairings.start(wanted);
    now = 299_999;
    const code = new URL(pairings.approve(id, 'acct_x' as never)).searchParams.get('code') ?? '';
    now += 60_000;
    expect(() => pairings.exchange(id, code, 'v'.repeat(43))).toThrow(/too old/);
    const late = pairings.start(wanted).id;
    now += 300_000;
    expect(() => pairings.waiting(late)).toThrow(/too old/);
    expect(() => pairings.approve(late, 'acct_x' as never)).toThrow(/too old/);
  });

  it('are bounded, so that nobody fills the memory with them', () => {
    let now = 0;
    const pairings = new Pairings(() => now);
    for (let count = 0; count < 1_000; count += 1) pairings.start(wanted);
    expect(() => pairings.start(wanted)).toThrow(/too many/);
    now = 300_000;
    expect(() => pairings.start(wanted)).not.toThrow();
  });
});

import { readdir, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { newLinkId } from '@instavm/core';
import { whyNoPebble } from '@instavm/testing/pebble';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { AcmeStand, type AcmeStandOptions } from './acme-stand.ts';

const DAY_MS = 86_400_000;

/** One stand for the tests of a group. */
function withStand(options: AcmeStandOptions = {}): () => AcmeStand {
  let stand: AcmeStand | undefined;
  beforeAll(async () => {
    stand = await AcmeStand.start(options);
  });
  afterAll(async () => stand?.close());
  return () => {
    if (!stand) throw new Error('the stand did not start');
    return stand;
  };
}

describe.skipIf(whyNoPebble() !== undefined)('ACME', () => {
  describe('a custom domain', () => {
    const stand = withStand();

    it('is refused until it has a certificate, and then served as its share over HTTP/1.1 and HTTP/2', async () => {
      const domain = 'shop.example.com';
      await stand().serve(domain, (request, response) => {
        response.end(`${request.httpVersion} ${request.headers['x-forwarded-host']} ${request.headers.host}`);
      });
      await expect(stand().get(domain)).rejects.toThrow('unrecognized name');
      await expect(stand().certificates.state(domain)).resolves.toEqual({
        certPresent: false,
        keyPresent: false,
        expiresAt: null,
      });

      await stand().issue(domain);

      expect((await stand().get(domain)).body).toContain(`1.1 ${domain}:${stand().port}`);
      const session = stand().http2(domain);
      const answer = session.request({ ':path': '/' });
      answer.setEncoding('utf8');
      let body = '';
      for await (const chunk of answer) body += chunk;
      session.close();
      expect(body).toContain(`${domain}:${stand().port}`);

      const { certPresent, keyPresent, expiresAt } = await stand().certificates.state(domain);
      expect([certPresent, keyPresent]).toEqual([true, true]);
      expect(((expiresAt?.getTime() ?? 0) - Date.now()) / DAY_MS).toBeCloseTo(90, 0);
    });

    it('leaves keys on disk that only their owner reads', async () => {
      const [authority = ''] = await readdir(join(stand().directory, 'acme'));
      const home = join(stand().directory, 'acme', authority);
      for (const file of ['account-key.pem', 'certificates/shop.example.com.pem']) {
        expect((await stat(join(home, file))).mode & 0o777, file).toBe(0o600);
      }
      expect(await readdir(join(home, 'certificates'))).toEqual(['shop.example.com.pem']);
    });

    it('orders nothing when a certificate is there, and one when several ask at once', async () => {
      const issued = (): number => stand().countLogged('certificate issued');
      const before = issued();
      await stand().issue('shop.example.com');
      expect(issued()).toBe(before);
      await stand().serve('twice.example.com', (_request, response) => response.end());
      await Promise.all([stand().issue('twice.example.com'), stand().issue('twice.example.com')]);
      expect(issued()).toBe(before + 1);
    });

    it('reaches no other share over its connection', async () => {
      const other = await stand().serve('other.example.com', (_request, response) => response.end('other'));
      await stand().issue('other.example.com');
      for (const host of ['other.example.com', `${other}.preview.localhost`, 'nobody.example.com']) {
        const answer = await stand().get('shop.example.com', '/', { headers: { host: `${host}:${stand().port}` } });
        expect([answer.status, answer.headers['instavm-preview']]).toEqual([421, 'misdirected_request']);

        const session = stand().http2('shop.example.com');
        const stream = session.request({ ':path': '/', ':authority': `${host}:${stand().port}` });
        const status = await new Promise((resolve) =>
          stream.once('response', (headers) => resolve(headers[':status'])),
        );
        session.destroy();
        expect(status).toBe(421);
      }
      const toShare = await stand().get(`${other}.preview.localhost`, '/', {
        headers: { host: 'other.example.com' },
        rejectUnauthorized: false,
      });
      expect(toShare.status).toBe(421);
    });

    it('is not served to who names no server, nor is a name that is nobody’s', async () => {
      const nameless = await stand().get('shop.example.com', '/', { servername: '', rejectUnauthorized: false });
      expect(nameless.status).toBe(421);
      const unknown = await stand().get('nobody.example.com', '/', { rejectUnauthorized: false });
      expect([unknown.status, unknown.headers['instavm-preview']]).toEqual([421, 'misdirected_request']);
    });

    it('that is private stays on its own host with its links and cookies', async () => {
      const domain = 'private.example.com';
      const id = await stand().serve(domain, (_request, response) => response.end('secret'), false);
      await stand().issue(domain);
      const here = `https://${domain}:${stand().port}`;
      expect((await stand().get(domain)).headers.location).toBe(`${here}/.instavm/private`);

      const link = new URL(stand().proxy.signedUrlOf(id, newLinkId(), new Date(Date.now() + 60_000)));
      const entered = await stand().get(domain, `/page${link.search}`);
      expect([entered.status, entered.headers.location]).toEqual([302, `${here}/page`]);
      const [cookie = ''] = entered.headers['set-cookie'] ?? [];
      expect(cookie).toMatch(/^__Host-/);
      expect(cookie).not.toMatch(/domain=/i);
      const opened = await stand().get(domain, '/page', { headers: { cookie: cookie.split(';')[0] ?? '' } });
      expect(opened.body).toBe('secret');
    });

    it('survives a restart without another order', async () => {
      const before = stand().countLogged('certificate issued');
      const { serialNumber } = await stand().shown('shop.example.com');
      await stand().stopProxy();
      await stand().startProxy();
      expect((await stand().shown('shop.example.com')).serialNumber).toBe(serialNumber);
      expect((await stand().get('shop.example.com')).status).toBe(200);
      expect(stand().countLogged('certificate issued')).toBe(before);
    });

    it('is renewed when a third of its time is left, and keeps the old certificate while that fails', {
      timeout: 120_000,
    }, async () => {
      const first = await stand().shown('shop.example.com');
      await stand().serve('gone.example.com', (_request, response) => response.end());
      await stand().issue('gone.example.com');
      const gone = await stand().shown('gone.example.com');
      await stand().pebble.failLookups('gone.example.com');
      // Pebble takes an account's earlier proof of a name for good in one order of a hundred, though it is told never to.
      await stand().changeAccount();

      stand().clock.advance(59 * DAY_MS);
      await new Promise((resolve) => setTimeout(resolve, 100));
      expect((await stand().shown('shop.example.com')).serialNumber).toBe(first.serialNumber);
      stand().clock.advance(4 * DAY_MS);
      const problems = () => stand().logged.filter((line) => line.includes('a certificate was not issued'));
      const ofGone = [expect.stringContaining('No certificate for gone.example.com')];
      await vi.waitFor(
        async () => {
          expect(problems()).toEqual(ofGone);
          expect((await stand().shown('shop.example.com')).serialNumber).not.toBe(first.serialNumber);
        },
        { timeout: 90_000, interval: 100 },
      );
      expect((await stand().get('shop.example.com')).status).toBe(200);
      expect((await stand().shown('gone.example.com')).serialNumber).toBe(gone.serialNumber);

      // Tried again after a while, and not written down again.
      stand().clock.advance(6 * 60_000);
      await new Promise((resolve) => setTimeout(resolve, 2_500));
      expect(problems()).toEqual(ofGone);
      expect((await stand().shown('gone.example.com')).serialNumber).toBe(gone.serialNumber);
    });

    it('that is forgotten has no certificate, no key and no renewal', async () => {
      await stand().certificates.forget('shop.example.com');
      await expect(stand().shown('shop.example.com')).rejects.toMatchObject({
        code: 'ERR_SSL_TLSV1_UNRECOGNIZED_NAME',
      });
      const { certPresent, keyPresent, expiresAt } = await stand().certificates.state('shop.example.com');
      expect([certPresent, keyPresent, expiresAt]).toEqual([false, false, null]);
      const before = stand().countLogged('"domain":"shop.example.com"');
      stand().clock.advance(100 * DAY_MS);
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(stand().countLogged('"domain":"shop.example.com"')).toBe(before);
      await stand().certificates.forget('shop.example.com');
    });
  });

  describe('an order that fails', () => {
    const stand = withStand();

    it('says what the authority said and what to do, and is not repeated at once', async () => {
      const domain = 'elsewhere.example.com';
      await stand().pebble.resolve(domain, '127.0.0.9');
      await expect(stand().issue(domain)).rejects.toMatchObject({
        code: 'certificate_failed',
        message: expect.stringMatching(/^No certificate for elsewhere\.example\.com \(tls-alpn-01\): .*connect/i),
        hint: expect.stringContaining('point the name here'),
        details: { domain, challenge: 'tls-alpn-01', problem_type: 'urn:ietf:params:acme:error:unauthorized' },
      });
      await stand().pebble.resolve(domain, '127.0.0.1');
      await expect(stand().issue(domain)).rejects.toMatchObject({
        code: 'rate_limited',
        message: expect.stringContaining('connect'),
      });
      expect((await stand().certificates.state(domain)).certPresent).toBe(false);

      stand().clock.advance(31_000);
      await stand().issue(domain);
      expect((await stand().certificates.state(domain)).certPresent).toBe(true);
    });

    it('because the authority does not issue for the name says so', async () => {
      await expect(stand().issue('blocked-domain.example')).rejects.toMatchObject({
        code: 'certificate_failed',
        message: expect.stringContaining('blocked-domain.example'),
        hint: expect.stringContaining('another name'),
      });
    });

    it('is given up when nobody waits for it, and leaves nothing', async () => {
      const reason = new Error('not wanted any more');
      const stop = new AbortController();
      const order = stand().certificates.issue('slow.example.com', stop.signal);
      stop.abort(reason);
      await expect(order).rejects.toBe(reason);
      await stand().issue('slow.example.com'); // no pause: it did not fail
      expect((await stand().certificates.state('slow.example.com')).certPresent).toBe(true);
    });

    it.each(['127.0.0.1', 'Shop.example.com', 'x.preview.localhost', 'a_b.example.com', '*.example.com', '../x.com'])(
      'is not placed for %s',
      async (name) => {
        await expect(stand().issue(name)).rejects.toMatchObject({ code: 'invalid_argument' });
        await expect(stand().certificates.state(name)).rejects.toMatchObject({ code: 'invalid_argument' });
        await expect(stand().certificates.forget(name)).rejects.toMatchObject({ code: 'invalid_argument' });
      },
    );
  });

  describe('HTTP-01', () => {
    const stand = withStand({ hidesTls: true, http: true, pebble: { noncesRejected: 15 } });

    it('proves a name when TLS-ALPN-01 does not, though the authority refuses many a nonce', async () => {
      await stand().serve('plain.example.com', (_request, response) => response.end('served'));
      await stand().issue('plain.example.com');
      expect((await stand().get('plain.example.com')).body).toBe('served');
    });

    it('answers nothing else, and leads everybody to https', async () => {
      const ask = (path: string, host = 'plain.example.com') =>
        fetch(`http://127.0.0.1:${stand().httpPort}${path}`, { redirect: 'manual', headers: { host } });
      const moved = await ask('/a?b=c');
      expect([moved.status, moved.headers.get('location')]).toEqual([308, `https://127.0.0.1:${stand().port}/a?b=c`]);
      expect((await ask('/.well-known/acme-challenge/guessed')).status).toBe(404);
    });

    it('and TLS-ALPN-01 are both named when neither proves anything', async () => {
      await stand().pebble.failLookups('lost.example.com');
      await expect(stand().issue('lost.example.com')).rejects.toMatchObject({
        message: expect.stringMatching(/tls-alpn-01: .* · http-01: /),
      });
    });
  });

  describe('DNS-01', () => {
    const stand = withStand({
      previewDomain: 'preview.example.com',
      dns: true,
      pebble: { externalAccounts: { 'kid-1': 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W' } },
      acme: {
        externalAccount: {
          kid: 'kid-1',
          hmacKey: 'zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W',
        },
      },
    });

    it('gets the listener its own certificate, with an account bound to another; until then it shows one of the local CA', async () => {
      expect(stand().countLogged('a certificate of the local CA until')).toBe(1);
      await vi.waitFor(
        async () => {
          const { issuer, subjectaltname } = await stand().shown('x.preview.example.com');
          expect([issuer.CN, subjectaltname]).toEqual([expect.stringContaining('Pebble'), 'DNS:*.preview.example.com']);
        },
        { timeout: 90_000, interval: 100 },
      );
      const id = await stand().serve('x.example.org', (_request, response) => response.end('served'));
      expect((await stand().get(`${id}.preview.example.com`)).body).toBe('served');

      const calls = (await readFile(stand().dnsCalls, 'utf8')).trim().split('\n');
      const [, value] = /^add _acme-challenge\.preview\.example\.com ([\w-]{43})$/.exec(calls[0] ?? '') ?? [];
      expect(calls[1]).toBe(`remove _acme-challenge.preview.example.com ${value}`);
    });

    it('is not ordered again after a restart', async () => {
      await stand().stopProxy();
      await stand().startProxy();
      expect((await stand().shown('x.preview.example.com')).issuer.CN).toContain('Pebble');
      expect(stand().countLogged('a certificate of the local CA until')).toBe(1);
      expect(stand().countLogged('certificate issued')).toBe(1);
    });
  });
});

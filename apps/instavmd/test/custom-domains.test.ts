/** Custom domains from the DNS record to a visitor's request, with a real certificate authority and a real DNS server. */
import { once } from 'node:events';
import { readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server } from 'node:http';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { startTestDaemon, type TestDaemon } from '@instavm/testing';
import { AcmeDaemon } from '@instavm/testing/acme-daemon';
import { whyNoPebble } from '@instavm/testing/pebble';
import { generate } from 'selfsigned';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { type Api, apiOf } from './api.ts';

/** What a program in a sandbox is: with the fake, sandboxes have the ports of this host. */
let service: Server;
let servicePort = 0;
beforeAll(async () => {
  service = createServer((asked, answer) => answer.end(`${asked.headers.host} ${asked.url}`)).listen(0, '127.0.0.1');
  await once(service, 'listening');
  servicePort = (service.address() as AddressInfo).port;
});
afterAll(async () => {
  service.closeAllConnections();
  await once(service.close(), 'close');
});

async function visit(host: string, port: number, ca: string | undefined, path = '/') {
  const trust = ca === undefined ? { rejectUnauthorized: false } : { ca };
  const headers = { host: `${host}:${port}` };
  const sent = request({ host: '127.0.0.1', port, servername: host, path, headers, agent: false, ...trust }).end();
  const [answer] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: answer.statusCode, headers: answer.headers, body: await text(answer) };
}

async function shareOf(api: Api, fields: object = {}): Promise<string> {
  const session_id = await api.createSession();
  const wanted = { session_id, port: servicePort, is_public: true, ...fields };
  return (await api.json('POST', '/v1/shares', wanted)).body.share_id;
}

const create = async (api: Api, domain: string, share_id: string) =>
  (await api.json('POST', '/v1/custom-domains', { domain, share_id, dns_provider: 'manual' })).body;

const settled = (api: Api, id: number) =>
  vi.waitFor(
    async () => {
      const { body } = await api.request('GET', `/v1/custom-domains/${id}`);
      expect(['issued', 'failed']).toContain(body.status);
      return body;
    },
    { timeout: 60_000, interval: 200 },
  );
/** The request does not wait for name servers that take their time. */
const verified = async (api: Api, id: number) => {
  expect((await api.request('POST', `/v1/custom-domains/${id}/verify`)).status).toBe(200);
  return settled(api, id);
};

describe.skipIf(whyNoPebble() !== undefined)('custom domains', () => {
  let stand: AcmeDaemon;
  let api: Api;
  beforeAll(async () => {
    stand = await AcmeDaemon.start();
    api = apiOf(stand.daemon);
  });
  afterAll(async () => {
    const { dataDirectory } = stand.daemon;
    await stand.stop();
    await rm(dataDirectory, { recursive: true, force: true });
  });

  it('are proven by DNS, get a certificate, serve the share, and are gone when they are deleted', async () => {
    const name = 'app.example.com';
    const share = await shareOf(api);
    const made = await create(api, name, share);
    const path = `/v1/custom-domains/${made.id}`;
    const { txt_record } = made.setup;
    expect(made).toMatchObject({ status: 'pending', url: `https://${name}:${stand.previewPort}` });

    expect(await verified(api, made.id)).toMatchObject({
      ...{ status: 'failed', last_error_code: 'domain_unverified' },
      last_error: expect.stringContaining(`${txt_record.name} = ${txt_record.value}: nothing was found`),
    });
    await stand.pebble.addTxt(txt_record.name, 'of another service');
    const { last_error } = await verified(api, made.id);
    expect(last_error).toContain('found "of another service"');
    await expect(visit(name, stand.previewPort, stand.root)).rejects.toThrow();
    expect((await api.request('GET', `${path}/health`)).body).toMatchObject({
      ...{ status: 'failed', cert_present: false, key_present: false, proxy_active: false, cert_expires_at: null },
    });

    await stand.pebble.addTxt(txt_record.name, txt_record.value);
    expect(await verified(api, made.id)).toMatchObject({ status: 'issued', last_error: null });
    const { status, body } = await visit(name, stand.previewPort, stand.root, '/path?query');
    expect([status, body]).toEqual([200, `${name}:${stand.previewPort} /path?query`]);
    const health = (await api.request('GET', `${path}/health`)).body;
    expect(health).toMatchObject({ status: 'issued', cert_present: true, key_present: true, proxy_active: true });
    expect(Date.parse(health.cert_expires_at)).toBeGreaterThan(Date.now());

    // What is private is so by every name.
    await api.json('PATCH', `/v1/shares/${share}`, { is_public: false });
    const hidden = await visit(name, stand.previewPort, stand.root);
    expect([hidden.status, hidden.headers['instavm-preview']]).toEqual([302, 'share_private']);
    expect((await api.request('GET', `${path}/health`)).body.proxy_active).toBe(true);
    await api.json('PATCH', `/v1/shares/${share}`, { is_public: true });

    await stand.crashAndRestart();
    api = apiOf(stand.daemon);
    // The fake's sandboxes end with their daemon, and their shares with them.
    const gone = await visit(name, stand.previewPort, stand.root);
    expect([gone.status, gone.headers['instavm-preview']]).toEqual([404, 'share_not_found']);
    expect((await api.request('GET', `${path}/health`)).body).toMatchObject({
      ...{ status: 'issued', cert_present: true, proxy_active: false },
    });

    expect((await api.request('DELETE', path)).body).toEqual({ id: made.id, deleted: true });
    expect((await api.request('GET', path)).status).toBe(404);
    await expect(visit(name, stand.previewPort, stand.root)).rejects.toThrow(/certificate|self-signed|verify/i);
    const foreign = await visit(name, stand.previewPort, undefined);
    expect([foreign.status, foreign.headers['instavm-preview']]).toEqual([421, 'misdirected_request']);
  });

  it('answer as their share does when that is revoked', async () => {
    const name = 'revoked.example.com';
    const share = await shareOf(api);
    const made = await create(api, name, share);
    await stand.pebble.addTxt(made.setup.txt_record.name, made.setup.txt_record.value);
    expect((await verified(api, made.id)).status).toBe('issued');
    expect((await visit(name, stand.previewPort, stand.root)).status).toBe(200);
    await api.request('DELETE', `/v1/shares/${share}`);
    const gone = await visit(name, stand.previewPort, stand.root);
    expect([gone.status, gone.headers['instavm-preview']]).toEqual([404, 'share_not_found']);
    expect((await api.request('DELETE', `/v1/custom-domains/${made.id}`)).status).toBe(200);
  });

  it('fail with the reason of the certificate authority', async () => {
    const made = await create(api, 'blocked-domain.example', await shareOf(api));
    await stand.pebble.addTxt(made.setup.txt_record.name, made.setup.txt_record.value);
    const failed = await verified(api, made.id);
    expect(failed).toMatchObject({ status: 'failed', last_error_code: 'certificate_failed' });
    expect(failed.last_error).toMatch(/blocked-domain\.example.*(policy|forbids|blocked)/i);
    // Asked again at once, the authority is left alone.
    expect((await verified(api, made.id)).last_error_code).toBe('rate_limited');
  });

  it('fail by name when the name servers do', async () => {
    const made = await create(api, 'broken.example.com', await shareOf(api));
    await stand.pebble.failLookups(made.setup.txt_record.name);
    const failed = await verified(api, made.id);
    expect(failed).toMatchObject({ status: 'failed', last_error_code: 'domain_unverified' });
    expect(failed.last_error).toMatch(/could not be asked .* \(queryTxt ESERVFAIL/);
  });

  it('are issued without an authority where the own certificate of the operator covers them, and refused by name where not', async () => {
    const { directory, dns } = stand.pebble;
    const names = ['*.preview.test', 'own.example.com'];
    const extensions = [
      { name: 'subjectAltName' as const, altNames: names.map((value) => ({ type: 2 as const, value })) },
    ];
    const { cert, private: key } = await generate([{ name: 'commonName', value: 'preview.test' }], { extensions });
    const [certPath, keyPath] = [join(directory, 'own-cert.pem'), join(directory, 'own-key.pem')];
    await writeFile(certPath, cert);
    await writeFile(keyPath, key);
    const env = {
      INSTAVM_PREVIEW_DOMAIN: 'preview.test',
      INSTAVM_PREVIEW_CERT: certPath,
      INSTAVM_PREVIEW_KEY: keyPath,
      INSTAVM_DOMAIN_DNS_SERVERS: dns,
    };
    const daemon: TestDaemon = await startTestDaemon({ vmm: 'fake', env });
    try {
      const own = apiOf(daemon);
      const share = await shareOf(own);
      const verify = async (domain: string) => {
        const made = await create(own, domain, share);
        await stand.pebble.addTxt(made.setup.txt_record.name, made.setup.txt_record.value);
        return verified(own, made.id);
      };
      const covered = await verify('own.example.com');
      expect(covered.status).toBe('issued');
      const port = Number(new URL(covered.url).port);
      expect((await visit('own.example.com', port, await readFile(certPath, 'utf8'))).body).toBe(
        `own.example.com:${port} /`,
      );
      expect((await own.request('GET', `/v1/custom-domains/${covered.id}/health`)).body).toMatchObject({
        ...{ cert_present: true, key_present: true, proxy_active: true },
      });
      const other = await verify('other.example.com');
      expect(other).toMatchObject({ status: 'failed', last_error_code: 'not_available' });
      expect(other.last_error).toMatch(/orders no certificates\. .*INSTAVM_ACME_DIRECTORY.*INSTAVM_PREVIEW_CERT/);
    } finally {
      await daemon.stop();
    }
  });
});

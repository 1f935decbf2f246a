import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createSecureServer, type Http2SecureServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, connect, createSecureContext, type SecureContext } from 'node:tls';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { Handshakes } from '../src/handshakes.ts';
import { createLocalCa } from '../src/local-ca.ts';

/** Each certificate is known by its name. */
let directory: string;
let server: Http2SecureServer;
const certificates = new Map<string, SecureContext>();
const proofs = new Map<string, SecureContext>();
const served: string[] = [];

async function pairOf(name: string): Promise<{ cert: string; key: string }> {
  return (await createLocalCa(directory, name)).issue(new Date());
}
const contextOf = async (name: string): Promise<SecureContext> => createSecureContext(await pairOf(name));

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-handshakes-'));
  certificates.set('shop.test', await contextOf('shop.cert'));
  proofs.set('shop.test', await contextOf('shop.proof'));
  proofs.set('new.test', await contextOf('new.proof'));
  const handshakes = new Handshakes({
    previewDomain: 'preview.test',
    targets: {
      findDomain: async (host) => {
        if (host === 'broken.test') throw new Error('the database is gone');
        return host === 'bare.test' ? ({} as never) : undefined;
      },
    },
    certificateOf: (name) => certificates.get(name),
    proofOf: (name) => proofs.get(name),
  });
  server = createSecureServer({ ...(await pairOf('main.cert')), ...handshakes.callbacks, allowHTTP1: true });
  handshakes.attach(server);
  server.on('request', (request, response) => {
    served.push(request.httpVersion);
    response.end();
  });
  server.on('tlsClientError', () => {});
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
});
afterAll(async () => {
  await new Promise((closed) => server.close(closed));
  await rm(directory, { recursive: true });
});

type Shown = { readonly certificate: string; readonly protocol: string | false | null; readonly received: string };

/** What a client is shown and sent when it says `hello`. @throws its complaint */
async function shown(servername: string, ALPNProtocols: string[], options: ConnectionOptions): Promise<Shown> {
  const { port } = server.address() as AddressInfo;
  const socket = connect({
    port,
    host: '127.0.0.1',
    servername,
    rejectUnauthorized: false,
    ...(ALPNProtocols.length === 0 ? {} : { ALPNProtocols }),
    ...options,
  });
  let received = '';
  socket.on('data', (chunk: Buffer) => {
    received += chunk.toString('latin1');
  });
  await once(socket, 'secureConnect');
  const { subject } = socket.getPeerCertificate();
  const closed = once(socket, 'close');
  socket.on('error', () => {});
  socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n');
  await closed;
  return { certificate: String(subject.CN).replace('*.', ''), protocol: socket.alpnProtocol, received };
}

describe.each(['TLSv1.2', 'TLSv1.3'] as const)('a handshake of %s', (version) => {
  const only = { minVersion: version, maxVersion: version };

  it('for acme-tls/1 gets the proof of the order under way, and nothing more', async () => {
    for (const [name, proof] of [
      ['shop.test', 'shop.proof'],
      ['new.test', 'new.proof'],
    ] as const) {
      expect(await shown(name, ['acme-tls/1'], only)).toEqual({
        certificate: proof,
        protocol: 'acme-tls/1',
        received: '',
      });
    }
  });

  it.each([
    ['a name without an order', 'preview.test', ['acme-tls/1']],
    ['a list with other protocols', 'shop.test', ['acme-tls/1', 'h2']],
    ['no name', '', ['acme-tls/1']],
  ])('for acme-tls/1 and %s is refused', async (_what, name, protocols) => {
    await expect(shown(name, protocols, only)).rejects.toThrow('no application protocol');
  });

  it('for a name with a certificate gets that, in any case and whatever is ordered meanwhile', async () => {
    for (const name of ['shop.test', 'SHOP.test']) {
      expect((await shown(name, ['h2', 'http/1.1'], only)).protocol).toBe('h2');
      const { certificate, protocol, received } = await shown(name, ['http/1.1'], only);
      expect([certificate, protocol]).toEqual(['shop.cert', 'http/1.1']);
      expect(received).toMatch(/^HTTP\/1\.1 200/);
      expect((await shown(name, [], only)).certificate).toBe('shop.cert');
    }
  });

  it('for a name whose first order is under way is not served', async () => {
    await expect(shown('new.test', ['h2'], only)).rejects.toThrow('no application protocol');
    expect((await shown('new.test', [], only)).received).toBe('');
  });

  it('for a custom domain without a certificate is refused, and for unknown names gets the listener’s own', async () => {
    await expect(shown('bare.test', ['h2'], only)).rejects.toThrow('unrecognized name');
    await expect(shown('bare.test', [], only)).rejects.toThrow('unrecognized name');
    for (const name of ['unknown.test', 'x.preview.test', 'preview.test', '']) {
      expect((await shown(name, ['http/1.1'], only)).certificate).toBe('main.cert');
    }
  });

  it('fails when the domain cannot be looked up', async () => {
    await expect(shown('broken.test', [], only)).rejects.toThrow();
  });

  it('for a protocol that nobody speaks is refused', async () => {
    await expect(shown('shop.test', ['spdy/3'], only)).rejects.toThrow('no application protocol');
  });
});

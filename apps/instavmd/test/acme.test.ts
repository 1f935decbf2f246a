/** A daemon that gets the certificate of its preview domain from a real authority. */
import { once } from 'node:events';
import { createServer } from 'node:net';
import { connect } from 'node:tls';
import { startTestDaemon } from '@instavm/testing';
import { freePorts, Pebble, whyNoPebble } from '@instavm/testing/pebble';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';

describe.skipIf(whyNoPebble() !== undefined)('a daemon with ACME', () => {
  let pebble: Pebble;
  let port = 0;
  let httpPort = 0;
  beforeAll(async () => {
    [port = 0, httpPort = 0] = await freePorts(2);
    pebble = await Pebble.start({ tlsPort: port, httpPort });
  });
  afterAll(() => pebble.stop());

  const env = async (): Promise<Record<string, string>> => ({
    INSTAVM_PREVIEW_LISTEN: `127.0.0.1:${port}`,
    INSTAVM_PREVIEW_DOMAIN: 'preview.example.com',
    INSTAVM_ACME_DIRECTORY: pebble.directoryUrl,
    INSTAVM_ACME_CA: pebble.caPath,
    INSTAVM_ACME_EMAIL: 'operator@example.com',
    INSTAVM_ACME_HTTP_LISTEN: `127.0.0.1:${httpPort}`,
    INSTAVM_ACME_DNS_HOOK: (await pebble.dnsHook()).program,
  });

  it('shows visitors a certificate that they trust, and leads them from http to it', async () => {
    const ca = await pebble.root();
    const daemon = await startTestDaemon({ vmm: 'fake', env: await env() });
    try {
      await vi.waitFor(
        async () => {
          const socket = connect({ port, host: '127.0.0.1', servername: 'x.preview.example.com', ca });
          await once(socket, 'secureConnect');
          socket.destroy();
        },
        { timeout: 60_000, interval: 200 },
      );
      expect(daemon.log()).toContain('until the first one by ACME is issued');
      const { status, headers } = await fetch(`http://127.0.0.1:${httpPort}/path`, { redirect: 'manual' });
      expect([status, headers.get('location')]).toEqual([308, `https://127.0.0.1:${port}/path`]);
    } finally {
      await daemon.stop();
    }
  });

  it('says which setting to change when the address for HTTP-01 is taken', async () => {
    const squatter = createServer().listen(httpPort, '127.0.0.1');
    await once(squatter, 'listening');
    try {
      await expect(startTestDaemon({ vmm: 'fake', env: await env() })).rejects.toThrow(
        /cannot serve previews on 127\.0\.0\.1:\d+ \(EADDRINUSE\)[\s\S]*INSTAVM_ACME_HTTP_LISTEN/,
      );
    } finally {
      squatter.close();
    }
  });
});

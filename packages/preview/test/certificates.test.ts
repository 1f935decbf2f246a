import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createLocalCa, PreviewProxy } from '../src/index.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-ca-'));
});
afterEach(() => rm(directory, { recursive: true }));

/** Whether a client that trusts `ca` takes a server with this certificate for `name`. @returns the client's complaint, or undefined */
async function complaint(ca: string, server: { cert: string; key: string }, name: string): Promise<string | undefined> {
  const listener = createServer(server, (socket) => socket.on('error', () => {}).end());
  listener.on('tlsClientError', () => {});
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as { port: number };
  const socket = connect({ port, host: '127.0.0.1', servername: name, ca });
  try {
    await once(socket, 'secureConnect');
    return undefined;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    return code === 'UNSPECIFIED' ? message : code;
  } finally {
    socket.destroy();
    listener.close();
  }
}

describe('the local CA', () => {
  it('is made once, however many start at once, and only its owner reads the key', async () => {
    const [first, ...others] = await Promise.all(
      Array.from({ length: 5 }, () => createLocalCa(directory, 'preview.localhost')),
    );
    const files = await readdir(directory);
    expect(files.sort()).toEqual(['preview.localhost.ca-key.pem', 'preview.localhost.ca.pem']);
    expect((await stat(join(directory, 'preview.localhost.ca-key.pem'))).mode & 0o777).toBe(0o600);
    const cert = await readFile(first?.certPath ?? '', 'utf8');
    expect(cert).not.toContain('PRIVATE');
    const again = await createLocalCa(directory, 'preview.localhost');
    for (const ca of [...others, again])
      expect(await complaint(cert, await ca.issue(new Date()), 'x.preview.localhost')).toBeUndefined();
  });

  it('issues for names under its domain, for ninety days', async () => {
    const ca = await createLocalCa(directory, 'preview.localhost');
    const root = await readFile(ca.certPath, 'utf8');
    const leaf = await ca.issue(new Date());
    const parsed = new X509Certificate(leaf.cert);
    expect(parsed.subjectAltName).toBe('DNS:*.preview.localhost, DNS:preview.localhost');
    expect(parsed.ca).toBe(false);
    expect(parsed.verify(new X509Certificate(root).publicKey)).toBe(true);
    const days = (parsed.validToDate.getTime() - Date.now()) / 86_400_000;
    expect(days).toBeGreaterThan(89);
    expect(days).toBeLessThan(91);
    expect(await complaint(root, leaf, 'a.b.preview.localhost')).toBe('ERR_TLS_CERT_ALTNAME_INVALID');
  });

  it('is not believed for any other name, though it signed for it', async () => {
    const ca = await createLocalCa(directory, 'preview.localhost');
    // The same key, put to work for another domain, as who stole it would.
    const key = await readFile(join(directory, 'preview.localhost.ca-key.pem'), 'utf8');
    await writeFile(join(directory, 'bank.example.ca-key.pem'), key);
    const thief = await createLocalCa(directory, 'bank.example');
    const root = await readFile(ca.certPath, 'utf8');
    expect(await complaint(root, await thief.issue(new Date()), 'www.bank.example')).toBe(
      'permitted subtree violation',
    );
  });

  it('is not believed for an address, though its constraint is one on names', async () => {
    const { certPem } = await createLocalCa(directory, 'preview.localhost');
    const file = join(directory, 'preview.localhost.ca-key.pem');
    const leaf = join(directory, 'leaf');
    const run = (...argv: string[]) => promisify(execFile)('openssl', argv);
    await writeFile(`${leaf}.ext`, 'subjectAltName=IP:127.0.0.1');
    const request = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/O=x'];
    await run('req', ...request, '-keyout', `${leaf}.key`, '-out', `${leaf}.csr`);
    const signed = ['-CA', file, '-CAkey', file, '-extfile', `${leaf}.ext`, '-days', '1'];
    await run('x509', '-req', '-in', `${leaf}.csr`, ...signed, '-out', `${leaf}.pem`);
    const server = { cert: await readFile(`${leaf}.pem`, 'utf8'), key: await readFile(`${leaf}.key`, 'utf8') };
    expect(await complaint(certPem, server, 'localhost')).toBe('excluded subtree violation');
  });

  it('says so when its file is damaged', async () => {
    await writeFile(join(directory, 'preview.localhost.ca-key.pem'), 'nonsense');
    await expect(createLocalCa(directory, 'preview.localhost')).rejects.toThrow('remove it to have a new CA made');
  });
});

describe('the listener', () => {
  const listen = (extra: object = {}): Promise<PreviewProxy> =>
    PreviewProxy.listen({
      host: '127.0.0.1',
      port: 0,
      domain: 'preview.localhost',
      directory,
      targets: {
        find: async () => undefined,
        findDomain: async () => undefined,
        isLinkRevoked: async () => false,
        mayOpen: async () => undefined,
      },
      log: { info: () => {}, warn: (_fields, message) => warnings.push(message) },
      ...extra,
    });
  let warnings: string[] = [];
  const shown = async (proxy: PreviewProxy): Promise<string> => {
    const port = Number(new URL(proxy.urlOf('x')).port);
    const socket: TLSSocket = connect({
      port,
      host: '127.0.0.1',
      servername: 'x.preview.localhost',
      rejectUnauthorized: false,
    });
    await once(socket, 'secureConnect');
    const { serialNumber } = socket.getPeerCertificate();
    socket.destroy();
    return serialNumber;
  };

  it('refuses a domain that is none', async () => {
    for (const domain of ['localhost', 'a..b', 'Preview.localhost', '*.x.y', 'a.b:1', '']) {
      await expect(listen({ domain })).rejects.toThrow('is no host name');
    }
  });

  it('shows a new certificate of the local CA before the old one ends', async () => {
    let now = Date.now();
    const proxy = await listen({ clock: { now: () => new Date(now), schedule: () => () => {} } });
    const first = await shown(proxy);
    now += 61 * 86_400_000;
    await expect.poll(() => shown(proxy), { interval: 200 }).not.toBe(first);
    await proxy.close();
  });

  it("reads the operator's certificate again when it changes, and keeps the last good one meanwhile", async () => {
    const ca = await createLocalCa(directory, 'preview.localhost');
    const certificate = { certPath: join(directory, 'own.pem'), keyPath: join(directory, 'own.key') };
    const put = async (): Promise<string> => {
      const { cert, key } = await ca.issue(new Date());
      await writeFile(certificate.keyPath, key);
      await writeFile(certificate.certPath, cert);
      return new X509Certificate(cert).serialNumber;
    };
    await expect(listen({ certificate })).rejects.toThrow('ENOENT');
    const first = await put();
    const proxy = await listen({ certificate });
    expect(proxy.authority).toBeUndefined();
    expect(await shown(proxy)).toBe(first);

    warnings = [];
    await writeFile(certificate.certPath, 'half writt');
    await expect.poll(() => warnings).toEqual([expect.stringContaining('the last one stays')]);
    expect(await shown(proxy)).toBe(first);
    const second = await put();
    await expect.poll(() => shown(proxy), { interval: 200 }).toBe(second);
    await proxy.close();
  });
});

/** What may come from outside: an authority that is none, a hook that misbehaves, files that were damaged. */
import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { chmod, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import type { RequestListener } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { systemClock } from '@instavm/core';
import { writeServerCertificate } from '@instavm/testing/pebble';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { Authority } from '../src/acme/authority.ts';
import { checkedCertificate } from '../src/acme/certificate.ts';
import { DnsHookSolver } from '../src/acme/dns-hook.ts';
import { CertificateKeeper } from '../src/acme/keeper.ts';
import { CertificateStore } from '../src/acme/store.ts';
import { createLocalCa } from '../src/local-ca.ts';

let directory: string;
const servers: Server[] = [];
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'instavm-hostile-'));
});
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await once(server.close(), 'close');
  }
  await rm(directory, { recursive: true });
});

const never = (): AbortSignal => new AbortController().signal;

describe('an authority', () => {
  async function open(listener: RequestListener, trusted = true): Promise<Authority> {
    const { certificate, privateKey } = await writeServerCertificate(directory);
    const server = createServer({ cert: await readFile(certificate), key: await readFile(privateKey) }, listener);
    servers.push(server.listen(0, '127.0.0.1'));
    await once(server, 'listening');
    const directoryUrl = `https://localhost:${(server.address() as AddressInfo).port}/dir`;
    return Authority.open(directory, { directoryUrl, ...(trusted ? { caPath: certificate } : {}) });
  }
  const order = async (listener: RequestListener, signal = never(), trusted = true): Promise<unknown> =>
    (await open(listener, trusted)).order('shop.example.com', [], signal);
  const json =
    (body: unknown): RequestListener =>
    (_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json', 'replay-nonce': 'n' }).end(JSON.stringify(body));
    };

  it.each<[string, RequestListener, string]>([
    [
      'that never stops talking',
      (_request, response) => {
        const more = setInterval(() => response.write('x'.repeat(64 * 1024)), 1);
        response.once('close', () => clearInterval(more));
      },
      'larger than 262144 bytes',
    ],
    ['that answers with a page', (_request, response) => response.end('<html>'), 'newAccount'],
    ['that hangs up', (request) => request.socket.destroy(), 'cannot be asked'],
    [
      'that sends a redirect',
      (_request, response) => response.writeHead(302, { location: 'http://x/' }).end(),
      'no data',
    ],
    [
      'that names addresses without TLS',
      json({ newNonce: 'http://127.0.0.1:1/', newAccount: 'http://127.0.0.1:1/' }),
      'is not https',
    ],
    ['that names no addresses', json({ newNonce: 7, newAccount: {}, newOrder: null }), 'is not https'],
    [
      'that is down',
      (_request, response) => response.writeHead(503).end('{"detail":"back soon\\n\\u001b[2J"}'),
      'back soon',
    ],
  ])('%s gives certificate_failed', async (_what, listener, reason) => {
    await expect(order(listener)).rejects.toMatchObject({
      code: 'certificate_failed',
      message: expect.stringMatching(new RegExp(`^No certificate for shop\\.example\\.com: [\\x20-\\x7e]*${reason}`)),
    });
  });

  it('whose own certificate nobody knows is not believed', async () => {
    await expect(order(json({}), never(), false)).rejects.toMatchObject({
      message: expect.stringContaining('self-signed certificate'),
    });
  });

  it('that does not answer is left when the caller leaves', async () => {
    const reason = new Error('enough');
    const stop = new AbortController();
    const asked = Promise.withResolvers<void>();
    const ordered = order(() => asked.resolve(), stop.signal);
    await asked.promise;
    stop.abort(reason);
    await expect(ordered).rejects.toBe(reason);
  });

  it('is asked again by who waited for the account that an order registers which is given up', async () => {
    const reason = new Error('enough');
    const stop = new AbortController();
    const asked = Promise.withResolvers<void>();
    let requests = 0;
    const authority = await open((_request, response) => {
      if (requests++ === 0) asked.resolve();
      else response.writeHead(503).end('{"detail":"back soon"}');
    });
    const orders = [authority.order('shop.example.com', [], stop.signal), authority.order('b.example', [], never())];
    const ended = Promise.allSettled(orders);
    await asked.promise;
    stop.abort(reason);
    expect(await ended).toMatchObject([{ reason }, { reason: { message: expect.stringContaining('back soon') } }]);
    expect(requests).toBe(2);
  });
});

describe('a DNS hook', () => {
  const proof = { domain: 'shop.example.com', token: 't', value: 'v' };
  const warnings: string[] = [];
  async function hook(script: string): Promise<DnsHookSolver> {
    const path = join(directory, 'hook');
    await writeFile(path, `#!/bin/sh\n${script}\n`);
    await chmod(path, 0o755);
    return new DnsHookSolver(path, { info: () => {}, warn: (_fields, message) => warnings.push(message) });
  }

  it('is told the record, and to remove it', async () => {
    const calls = join(directory, 'calls');
    const solver = await hook(`echo "$@" >> ${calls}`);
    const takeBack = await solver.present(proof, never());
    expect(await readFile(calls, 'utf8')).toBe('add _acme-challenge.shop.example.com v\n');
    await takeBack();
    expect(await readFile(calls, 'utf8')).toContain('remove _acme-challenge.shop.example.com v\n');
  });

  it('for which there are no descriptors left is said not to start, and ends nothing else', async () => {
    const program = `
      import { openSync } from 'node:fs';
      import { DnsHookSolver } from ${JSON.stringify(new URL('../src/acme/dns-hook.ts', import.meta.url).href)};
      const solver = new DnsHookSolver('/bin/true', { info() {}, warn() {} });
      // Until there are none left, which the last one tells.
      try { for (;;) openSync('/dev/null'); } catch {}
      await solver.present({ domain: 'a.example', token: 't', value: 'v' }, new AbortController().signal)
        .catch(({ message }) => console.log(message));`;
    const script = 'ulimit -n 100 && exec "$0" "$@"';
    const argv = [process.execPath, '--conditions=instavm-source', '--input-type=module', '--eval', program];
    const { stdout } = await promisify(execFile)('/bin/sh', ['-c', script, ...argv]);
    expect(stdout).toMatch(/^the DNS hook cannot be started: .*EMFILE/);
  });

  it('that fails is quoted, in part', async () => {
    const solver = await hook(`head -c 1000000 /dev/zero | tr '\\0' x; echo ' no such zone' >&2; exit 7`);
    const error = await solver.present(proof, never()).catch((reason: Error) => reason);
    expect(error).toMatchObject({
      message: expect.stringMatching(/^the DNS hook ended with 7: x{200,300} no such zone$/),
    });
  });

  it('that is not there says so', async () => {
    const solver = new DnsHookSolver(join(directory, 'none'), { info: () => {}, warn: () => {} });
    await expect(solver.present(proof, never())).rejects.toThrow(/cannot be started: .*ENOENT/);
  });

  it('is ended with all that it started when the order is given up', async () => {
    const pids = join(directory, 'pids');
    const solver = await hook(`test "$1" = remove && exit 0\nsleep 600 &\necho $! > ${pids}\nwait`);
    const stop = new AbortController();
    const presented = solver.present(proof, stop.signal);
    await expect.poll(() => readFile(pids, 'utf8').catch(() => '')).toMatch(/^\d+\n$/);
    stop.abort();
    await expect(presented).rejects.toThrow('ended with SIGKILL');
    const pid = Number(await readFile(pids, 'utf8'));
    await expect.poll(() => stateOf(pid)).toMatch(/^[ZX]?$/);
  });
});

/** @returns '' when there is no such process */
async function stateOf(pid: number): Promise<string> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return /^State:\s+(\w)/m.exec(status)?.[1] ?? '';
}

describe('a certificate on disk', () => {
  it('that was damaged is left out, written down, and ordered anew', async () => {
    const { cert, key } = await (await createLocalCa(directory, 'shop.example.com')).issue(new Date());
    const other = await (await createLocalCa(directory, 'other.example.com')).issue(new Date());
    const good = checkedCertificate('shop.example.com', cert, key);
    const home = join(directory, 'certificates');
    const store = await CertificateStore.open(home);
    await store.save('shop.example.com', good);
    await store.save('torn.example.com', good); // for another name
    await writeFile(join(home, 'half.example.com.pem'), key);
    await writeFile(join(home, 'mixed.example.com.pem'), `${other.key}${cert}`);
    await writeFile(join(home, 'lost.pem.0123.partial'), key);

    const warnings: string[] = [];
    const ordered: string[] = [];
    const log = { info: () => {}, warn: (fields: object) => warnings.push((fields as { domain: string }).domain) };
    const keeper = await CertificateKeeper.open({
      store: await CertificateStore.open(home),
      authority: {
        order: async (name) => {
          ordered.push(name);
          return good;
        },
      },
      solversFor: () => [],
      previewDomain: 'preview.localhost',
      clock: systemClock,
      log,
    });
    expect(warnings.sort()).toEqual(['half.example.com', 'mixed.example.com', 'torn.example.com']);
    expect(keeper.installed('shop.example.com')?.certificate.cert).toBe(good.cert);
    expect(await keeper.state('half.example.com')).toEqual({ certPresent: false, keyPresent: true, expiresAt: null });
    await keeper.issue('half.example.com', never());
    expect(ordered).toEqual(['half.example.com']);
    await keeper.close();
    await expect(keeper.issue('late.example.com', never())).rejects.toMatchObject({ code: 'shutting_down' });
  });
});

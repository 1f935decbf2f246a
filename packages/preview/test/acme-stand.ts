/** A preview proxy with a certificate authority beside it, custom domains that lead to servers on loopback, and a clock that the test moves. */
import { once } from 'node:events';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import { type ClientHttp2Session, connect as http2Connect } from 'node:http2';
import { type RequestOptions, request } from 'node:https';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConnectionOptions, type DetailedPeerCertificate, connect as tlsConnect } from 'node:tls';
import type { Clock } from '@instavm/core';
import { freePorts } from '@instavm/testing';
import { Pebble, type PebbleOptions } from '@instavm/testing/pebble';
import { type AcmeOptions, type DomainCertificates, PreviewProxy, type PreviewTarget } from '../src/index.ts';
import { type Answer, readAnswer, shareId } from './stand.ts';

export class TestClock implements Clock {
  #offsetMs = 0;
  readonly #tasks = new Set<{ readonly at: number; readonly task: () => void }>();

  now(): Date {
    return new Date(Date.now() + this.#offsetMs);
  }

  schedule(at: Date, task: () => void): () => void {
    const entry = { at: at.getTime(), task };
    this.#tasks.add(entry);
    setImmediate(() => this.#run());
    return () => this.#tasks.delete(entry);
  }

  advance(ms: number): void {
    this.#offsetMs += ms;
    this.#run();
  }

  #run(): void {
    for (const entry of this.#tasks) {
      if (entry.at > this.now().getTime()) continue;
      this.#tasks.delete(entry);
      entry.task();
    }
  }
}

export type AcmeStandOptions = {
  readonly previewDomain?: string;
  readonly pebble?: Omit<PebbleOptions, 'tlsPort' | 'httpPort'>;
  readonly acme?: Partial<AcmeOptions>;
  /** The authority looks for TLS-ALPN-01 where nobody is, so that it has to be another challenge. */
  readonly hidesTls?: boolean;
  /** Serve HTTP-01. */
  readonly http?: boolean;
  /** Order by DNS through a program that sets records in the test's DNS. */
  readonly dns?: boolean;
};

export class AcmeStand {
  readonly pebble: Pebble;
  readonly clock = new TestClock();
  readonly logged: string[] = [];
  readonly domains = new Map<string, PreviewTarget>();
  readonly directory: string;
  readonly httpPort: number;
  root = '';
  dnsCalls = '';
  port: number;
  #proxy: PreviewProxy | undefined;
  #acme: AcmeOptions | undefined;
  readonly #previewDomain: string;
  readonly #servers: Server[] = [];

  static async start(options: AcmeStandOptions = {}): Promise<AcmeStand> {
    const [tlsPort = 0, httpPort = 0, nobody = 0] = await freePorts(3);
    const pebble = await Pebble.start({ ...options.pebble, tlsPort: options.hidesTls ? nobody : tlsPort, httpPort });
    const directory = await mkdtemp(join(tmpdir(), 'instavm-acme-'));
    const stand = new AcmeStand(pebble, directory, tlsPort, httpPort, options.previewDomain ?? 'preview.localhost');
    stand.root = await pebble.root();
    const hook = options.dns ? await pebble.dnsHook() : undefined;
    stand.dnsCalls = hook?.calls ?? '';
    stand.#acme = {
      directoryUrl: pebble.directoryUrl,
      caPath: pebble.caPath,
      email: 'operator@example.com',
      ...(options.http ? { httpListen: { host: '127.0.0.1', port: httpPort } } : {}),
      ...(hook ? { dnsHook: hook.program } : {}),
      ...options.acme,
    };
    await stand.startProxy();
    return stand;
  }

  private constructor(pebble: Pebble, directory: string, port: number, httpPort: number, previewDomain: string) {
    this.pebble = pebble;
    this.directory = directory;
    this.port = port;
    this.httpPort = httpPort;
    this.#previewDomain = previewDomain;
  }

  get certificates(): DomainCertificates {
    const { certificates } = this.proxy;
    if (!certificates) throw new Error('no ACME');
    return certificates;
  }

  get proxy(): PreviewProxy {
    if (!this.#proxy) throw new Error('the proxy is stopped');
    return this.#proxy;
  }

  /** Again on the same directory. */
  async startProxy(): Promise<void> {
    const log = (level: string) => (fields: object, message: string) => {
      const { err } = fields as { err?: Error };
      this.logged.push(`${level} ${message} ${JSON.stringify(fields)} ${err?.message ?? ''}`);
    };
    this.#proxy = await PreviewProxy.listen({
      host: '127.0.0.1',
      port: this.port,
      domain: this.#previewDomain,
      directory: this.directory,
      clock: this.clock,
      log: { info: log('info'), warn: log('warn') },
      targets: {
        find: async (id) => [...this.domains.values()].find((target) => target.shareId === id),
        findDomain: async (host) => this.domains.get(host),
        isLinkRevoked: async () => false,
        mayOpen: async () => undefined,
      },
      ...(this.#acme ? { acme: this.#acme } : {}),
    });
  }

  async stopProxy(): Promise<void> {
    await this.#proxy?.close();
    this.#proxy = undefined;
  }

  /** Restarted, with all certificates, as somebody who has proven nothing yet to the authority. */
  async changeAccount(): Promise<void> {
    await this.stopProxy();
    const [authority = ''] = await readdir(join(this.directory, 'acme'));
    await rm(join(this.directory, 'acme', authority, 'account-key.pem'));
    await this.startProxy();
  }

  /** A verified custom domain whose share leads to a server. @returns the share's id */
  async serve(domain: string, listener: RequestListener, isPublic = true): Promise<string> {
    const server = createServer(listener).listen(0, '127.0.0.1');
    await once(server, 'listening');
    this.#servers.push(server);
    const { port } = server.address() as AddressInfo;
    const id = shareId(domain.replace(/[^a-z]/g, '').slice(0, 20));
    this.domains.set(domain, {
      shareId: id,
      sandboxId: 'box',
      port,
      isPublic,
      connect: async (signal) => {
        const socket = connect({ port, host: '127.0.0.1', signal });
        await once(socket, 'connect');
        return socket;
      },
    });
    return id;
  }

  issue(domain: string): Promise<void> {
    return this.certificates.issue(domain, AbortSignal.timeout(110_000));
  }

  async get(domain: string, path = '/', options: RequestOptions = {}): Promise<Answer> {
    const { headers, ...rest } = options;
    const sent = request({
      host: '127.0.0.1',
      port: this.port,
      servername: domain,
      path,
      ca: this.root,
      agent: false,
      headers: { host: `${domain}:${this.port}`, ...(headers as object) },
      ...rest,
    }).end();
    const [answer] = await once(sent, 'response');
    return readAnswer(answer);
  }

  http2(domain: string): ClientHttp2Session {
    const tls = { host: '127.0.0.1', port: this.port, servername: domain, ca: this.root, ALPNProtocols: ['h2'] };
    return http2Connect(`https://${domain}:${this.port}`, { createConnection: () => tlsConnect(tls) });
  }

  /** The certificate that a client which trusts nobody is shown. @throws its complaint when the handshake fails */
  async shown(servername: string, options: ConnectionOptions = {}): Promise<DetailedPeerCertificate> {
    const socket = tlsConnect({
      host: '127.0.0.1',
      port: this.port,
      servername,
      rejectUnauthorized: false,
      ...options,
    });
    try {
      await once(socket, 'secureConnect');
      return socket.getPeerCertificate(true);
    } finally {
      socket.destroy();
    }
  }

  countLogged(text: string): number {
    return this.logged.filter((line) => line.includes(text)).length;
  }

  async close(): Promise<void> {
    await this.stopProxy();
    for (const server of this.#servers) {
      server.closeAllConnections();
      await once(server.close(), 'close');
    }
    await this.pebble.stop();
    await rm(this.directory, { recursive: true, force: true });
  }
}

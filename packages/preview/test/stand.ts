/** A preview proxy whose sandboxes are servers on loopback, and clients that trust its CA. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type RequestListener, type Server } from 'node:http';
import { type ClientHttp2Session, connect as http2Connect } from 'node:http2';
import { request as httpsRequest, type RequestOptions } from 'node:https';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Duplex } from 'node:stream';
import { type TLSSocket, connect as tlsConnect } from 'node:tls';
import type { LinkId } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { type PreviewLimits, PreviewProxy, type PreviewTarget } from '../src/index.ts';

export const shareId = (name: string): string => `shr${name.padEnd(20, 'a')}`;
export const KEY = 'instavm_sk_owner';

export type Answer = {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly rawHeaders: readonly string[];
  readonly trailers: NodeJS.Dict<string>;
  readonly body: string;
};

export class Stand {
  readonly proxy: PreviewProxy;
  readonly directory: string;
  readonly ca: string;
  readonly port: number;
  readonly targets: Map<string, PreviewTarget>;
  readonly revoked: Set<LinkId>;
  /** How to end what was opened with the key. */
  readonly byKey = new Set<() => void>();
  readonly warnings: string[];
  /** Connections that the proxy opened to services, and has not let go of. */
  readonly connections: Set<Duplex>;
  readonly #servers: Server[] = [];
  connected = 0;
  now = Date.now();

  static async start(limits: Partial<PreviewLimits> = {}): Promise<Stand> {
    const directory = await mkdtemp(join(tmpdir(), 'instavm-preview-'));
    const targets = new Map<string, PreviewTarget>();
    const warnings: string[] = [];
    const revoked = new Set<LinkId>();
    const box: { stand?: Stand } = {};
    const held = (end: () => void): (() => void) => {
      box.stand?.byKey.add(end);
      return () => box.stand?.byKey.delete(end);
    };
    const proxy = await PreviewProxy.listen({
      host: '127.0.0.1',
      port: 0,
      domain: 'preview.localhost',
      directory,
      limits,
      clock: { now: () => new Date(box.stand?.now ?? Date.now()), schedule: () => () => {} },
      log: { info: () => {}, warn: (fields, message) => warnings.push(`${message} ${JSON.stringify(fields)}`) },
      targets: {
        find: async (id) => targets.get(id),
        findDomain: async () => undefined,
        isLinkRevoked: async (_, linkId) => revoked.has(linkId),
        mayOpen: async (key, target) => (key === KEY && target.sandboxId === 'box' ? held : undefined),
      },
    });
    const ca = await readFile(proxy.authority?.certPath ?? '', 'utf8');
    box.stand = new Stand(proxy, directory, ca, targets, revoked, warnings);
    return box.stand;
  }

  private constructor(
    proxy: PreviewProxy,
    directory: string,
    ca: string,
    targets: Map<string, PreviewTarget>,
    revoked: Set<LinkId>,
    warnings: string[],
  ) {
    this.proxy = proxy;
    this.directory = directory;
    this.ca = ca;
    this.port = Number(new URL(proxy.urlOf(shareId('x'))).port);
    this.targets = targets;
    this.revoked = revoked;
    this.warnings = warnings;
    this.connections = new Set();
  }

  /** A share of a port on loopback, where nothing has to listen. */
  share(name: string, port: number, isPublic = true): string {
    const id = shareId(name);
    this.targets.set(id, {
      shareId: id,
      sandboxId: 'box',
      port,
      isPublic,
      connect: (signal) => this.#connect(port, signal),
    });
    return id;
  }

  failing(name: string, connect: PreviewTarget['connect']): string {
    const id = shareId(name);
    this.targets.set(id, { shareId: id, sandboxId: 'box', port: 3000, isPublic: true, connect });
    return id;
  }

  async service(name: string, listener: RequestListener, isPublic = true): Promise<string> {
    const server = createServer({ keepAliveTimeout: 5_000 }, listener);
    return this.share(name, await this.listen(server), isPublic);
  }

  async listen(server: Server | import('node:net').Server): Promise<number> {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    this.#servers.push(server as Server);
    return (server.address() as AddressInfo).port;
  }

  #connect(port: number, signal: AbortSignal): Promise<Socket> {
    return new Promise((resolve, reject) => {
      const socket = connect({ port, host: '127.0.0.1', signal });
      socket.once('connect', () => {
        this.connected += 1;
        this.connections.add(socket);
        socket.once('close', () => this.connections.delete(socket));
        resolve(socket);
      });
      socket.once('error', (error) =>
        reject(
          new InstaVMError('port_not_listening', `Nothing listens on port ${port} of the sandbox.`, { cause: error }),
        ),
      );
    });
  }

  hostOf = (id: string): string => `${id}.preview.localhost`;
  authorityOf = (id: string): string => `${this.hostOf(id)}:${this.port}`;

  optionsFor(id: string, path: string, extra: RequestOptions = {}): RequestOptions {
    const { headers, ...rest } = extra;
    return {
      host: '127.0.0.1',
      port: this.port,
      servername: this.hostOf(id),
      path,
      ca: this.ca,
      agent: false,
      ...rest,
      headers: { host: this.authorityOf(id), ...(headers as Record<string, string>) },
    };
  }

  /** The whole answer; rejects when it breaks off. */
  async ask(id: string, path: string, options: RequestOptions & { body?: string | Buffer } = {}): Promise<Answer> {
    const { body, ...rest } = options;
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    const request = httpsRequest(this.optionsFor(id, path, rest), resolve);
    request.once('error', reject);
    request.end(body);
    return readAnswer(await promise);
  }

  /** An answer whose body is read as it comes. */
  async open(id: string, path: string, options: RequestOptions = {}): Promise<IncomingMessage> {
    const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
    httpsRequest(this.optionsFor(id, path, options), resolve)
      .once('error', reject)
      .end();
    return promise;
  }

  http2(id: string): ClientHttp2Session {
    const session = http2Connect(`https://${this.authorityOf(id)}`, {
      ca: this.ca,
      lookup: undefined,
      createConnection: () =>
        tlsConnect({
          host: '127.0.0.1',
          port: this.port,
          servername: this.hostOf(id),
          ca: this.ca,
          ALPNProtocols: ['h2'],
        }),
    } as Parameters<typeof http2Connect>[1]);
    session.on('error', () => {});
    return session;
  }

  async rawSocket(id: string): Promise<TLSSocket> {
    const socket = tlsConnect({ host: '127.0.0.1', port: this.port, servername: this.hostOf(id), ca: this.ca });
    await new Promise<void>((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    return socket;
  }

  /** Sends bytes as they are; everything that comes back until the proxy hangs up. */
  async raw(id: string, bytes: string): Promise<string> {
    const socket = await this.rawSocket(id);
    socket.write(bytes, 'latin1');
    const chunks: Buffer[] = [];
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    await new Promise((resolve) => socket.once('close', resolve).on('error', () => {}));
    return Buffer.concat(chunks).toString('latin1');
  }

  async close(): Promise<void> {
    await this.proxy.close();
    for (const server of this.#servers) {
      server.closeAllConnections?.();
      await new Promise((resolve) => server.close(resolve));
    }
    await rm(this.directory, { recursive: true });
  }
}

export async function readAnswer(answer: IncomingMessage): Promise<Answer> {
  const chunks: Buffer[] = [];
  for await (const chunk of answer) chunks.push(chunk as Buffer);
  const { headers, rawHeaders, trailers } = answer;
  return { status: answer.statusCode ?? 0, headers, rawHeaders, trailers, body: Buffer.concat(chunks).toString() };
}

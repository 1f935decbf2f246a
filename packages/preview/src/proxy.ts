/**
 * The listener of previews: TLS, HTTP/1.1 and HTTP/2 in, HTTP/1.1 to the service in a sandbox. It judges where a request belongs and who sends it;
 * forward.ts and websocket.ts carry what passes. The host name alone decides the share, so nothing in a path can lead to another.
 */
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { createSecureServer, type Http2SecureServer, type Http2Session, type ServerHttp2Session } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type Clock, type LifecycleLog, type LinkId, systemClock, type Withdrawal } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import { type Access, AccessRules, type Admission, PRIVATE_PAGE } from './access.ts';
import type { Acme } from './acme/acme.ts';
import type { DomainCertificates } from './acme/domain-certificates.ts';
import type { AcmeOptions } from './acme/options.ts';
import { type CertificateFiles, follow, type KeyPair } from './certificates.ts';
import { answerClientError } from './client-errors.ts';
import { type Incoming, isGone, isHttp2, type Outgoing, sendPage } from './exchange.ts';
import { type Forwarding, forward } from './forward.ts';
import { takeToken } from './headers.ts';
import { isPreviewDomain } from './hosts.ts';
import { type ListenerParts, openListenerParts } from './listener-parts.ts';
import type { LocalCa } from './local-ca.ts';
import { errorPage, type Page, privatePage, redirect } from './pages.ts';
import { misdirected, type Parsed, parseRequest } from './requests.ts';
import { Shares } from './shares.ts';
import type { KeyHold, PreviewTarget, PreviewTargets } from './targets.ts';
import type { TokenSigner } from './tokens.ts';
import { forwardWebSocket, isWebSocketUpgrade, responseOver } from './websocket.ts';

export type PreviewLimits = {
  /** For the sandbox to wake and its port to answer. */
  readonly connectTimeoutMs: number;
  /** From the end of a request to the header of its answer. */
  readonly answerTimeoutMs: number;
  /** Without a byte in either direction: server-sent events and WebSockets are quiet for long. */
  readonly idleTimeoutMs: number;
  /** Of a visitor's connection without a request on it, and of one that was ended and that the visitor does not end. */
  readonly connectionIdleMs: number;
  /** For the header of a request, and for TLS before it. */
  readonly headerTimeoutMs: number;
  /** Requests and WebSockets of one share at a time. */
  readonly exchangesPerShare: number;
  readonly connections: number;
};

const LIMITS: PreviewLimits = {
  connectTimeoutMs: 30_000,
  answerTimeoutMs: 120_000,
  idleTimeoutMs: 4 * 3_600_000,
  connectionIdleMs: 75_000,
  headerTimeoutMs: 15_000,
  exchangesPerShare: 1_024,
  connections: 8_192,
};
const MAX_HEADER_BYTES = 32 * 1024;
/** Of one HTTP/2 upload under way, and four times that of a connection: 64 KiB, the default, is slow from far away. */
const UPLOAD_WINDOW_BYTES = 1 << 20;

export type PreviewProxyOptions = {
  readonly host: string;
  readonly port: number;
  /** Shares are `<share id>.<domain>`; at least two labels, in lower case. */
  readonly domain: string;
  /** Of the local CA and the secret of links; made when missing. */
  readonly directory: string;
  readonly targets: PreviewTargets;
  readonly log: LifecycleLog;
  /** The operator's own, for `*.<domain>`; without it, the local CA's. */
  readonly certificate?: CertificateFiles;
  /** Certificates for custom domains, and with a DNS hook the listener's own unless that is the operator's. */
  readonly acme?: AcmeOptions;
  readonly clock?: Clock;
  readonly limits?: Partial<PreviewLimits>;
};

export class PreviewProxy {
  /** What visitors must trust; undefined with a certificate of the operator's own. */
  readonly authority: LocalCa | undefined;
  /** Undefined when no ACME directory is configured. */
  readonly certificates: DomainCertificates | undefined;
  readonly #options: PreviewProxyOptions;
  readonly #limits: PreviewLimits;
  readonly #server: Http2SecureServer;
  readonly #signer: TokenSigner;
  readonly #access: AccessRules;
  readonly #shares: Shares;
  readonly #sockets = new Set<Socket>();
  /** Keeps a session of HTTP/2 for an exchange, until it is called. */
  readonly #quiet = new WeakMap<Http2Session, () => () => void>();
  readonly #acme: Acme | undefined;
  readonly #stopFollowing: () => void;
  #port = 0;

  /** @throws Error when the domain is no host name, a certificate or key cannot be read, or an address is taken */
  static async listen(options: PreviewProxyOptions): Promise<PreviewProxy> {
    const { domain, host, port } = options;
    if (!isPreviewDomain(domain)) throw new Error(`the preview domain ${domain} is no host name of two labels or more`);
    let bound = port;
    const proxy = new PreviewProxy(options, await openListenerParts(options, () => bound));
    try {
      proxy.#server.listen(port, host);
      await once(proxy.#server, 'listening');
    } catch (error) {
      await proxy.close();
      throw error;
    }
    bound = (proxy.#server.address() as AddressInfo).port;
    proxy.#port = bound;
    proxy.#acme?.start();
    return proxy;
  }

  private constructor(options: PreviewProxyOptions, { signer, source, pair, authority, acme }: ListenerParts) {
    this.#options = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#signer = signer;
    this.#acme = acme;
    this.authority = authority;
    this.certificates = acme?.certificates;
    this.#access = new AccessRules(signer, options.targets, options.clock ?? systemClock);
    this.#shares = new Shares(this.#limits.exchangesPerShare, this.#limits.connectTimeoutMs, options.log);
    this.#server = this.#createServer(pair ?? {});
    acme?.handshakes.attach(this.#server);
    this.#stopFollowing = follow(
      source,
      (newer) => this.#server.setSecureContext({ cert: newer.cert, key: newer.key, minVersion: 'TLSv1.2' }),
      options.log,
    );
  }

  /** Open ones, of visitors. */
  get connections(): number {
    return this.#sockets.size;
  }

  urlOf(shareId: string): string {
    return `https://${shareId}.${this.#options.domain}${this.#port === 443 ? '' : `:${this.#port}`}`;
  }

  /** An address that opens a private share until `expiresAt`; what it is opened with becomes a cookie. */
  signedUrlOf(shareId: string, linkId: LinkId, expiresAt: Date): string {
    return `${this.urlOf(shareId)}/?instavm_token=${this.#signer.sign('link', shareId, { linkId, expiresAt })}`;
  }

  /** Ends what is under way to a share and rests on what was withdrawn. */
  withdraw(shareId: string, what: Withdrawal): void {
    this.#shares.withdraw(shareId, what);
  }

  /** Ends everything under way. A second call changes nothing. */
  async close(): Promise<void> {
    this.#stopFollowing();
    this.#shares.close();
    const closed = this.#server.listening ? once(this.#server, 'close') : undefined;
    if (closed) this.#server.close();
    for (const socket of this.#sockets) socket.destroy();
    await Promise.all([closed, this.#acme?.close()]);
  }

  #createServer({ cert, key }: Partial<KeyPair>): Http2SecureServer {
    const { headerTimeoutMs, connectionIdleMs, connections } = this.#limits;
    const server = createSecureServer({
      ...(cert === undefined || key === undefined ? {} : { cert, key }),
      ...this.#acme?.handshakes.callbacks,
      allowHTTP1: true,
      minVersion: 'TLSv1.2',
      handshakeTimeout: headerTimeoutMs,
      settings: {
        enableConnectProtocol: true,
        maxConcurrentStreams: 256,
        maxHeaderListSize: MAX_HEADER_BYTES,
        initialWindowSize: UPLOAD_WINDOW_BYTES,
      },
      http1Options: {
        maxHeaderSize: MAX_HEADER_BYTES,
        headersTimeout: headerTimeoutMs,
        requestTimeout: 0, // uploads take what they take; a silent one ends with the idle timeout
        keepAliveTimeout: connectionIdleMs,
        connectionsCheckingInterval: Math.min(5_000, headerTimeoutMs),
        insecureHTTPParser: false,
      },
    } as Parameters<typeof createSecureServer>[0]);
    server.maxConnections = connections;
    Object.assign(server, { shouldUpgradeCallback: isWebSocketUpgrade });

    server.on('connection', (socket: Socket) => {
      socket.setNoDelay(true);
      this.#sockets.add(socket);
      socket.once('close', () => this.#sockets.delete(socket));
    });
    let opened: ServerHttp2Session | undefined;
    server.on('session', (session: ServerHttp2Session) => {
      session.setLocalWindowSize(4 * UPLOAD_WINDOW_BYTES);
      opened = session;
    });
    // After Node has made the session of this very connection, if it is one of HTTP/2.
    server.on('secureConnection', (socket: TLSSocket) => {
      if (opened) this.#quiet.set(opened, closeWhenIdle(opened, socket, connectionIdleMs));
      opened = undefined;
      // Who is told that it is over, and does not hang up.
      socket.once('finish', () => destroyLater(socket, connectionIdleMs));
    });
    server.on('sessionError', () => {}); // the peer broke the protocol or went away; Node has closed the session
    server.on('clientError', answerClientError);
    const serve = (request: Incoming, response: Outgoing): void => void this.#serve(request, response, undefined);
    server.on('request', serve);
    server.on('checkContinue', serve);
    server.on('connect' as 'request', (request: Incoming, second: unknown) => {
      if (isHttp2(request)) void this.#serve(request, second as Outgoing, undefined);
      else refuseConnect(request, second as Duplex);
    });
    server.on(
      'upgrade' as 'request',
      ((request: IncomingMessage, socket: Duplex, head: Buffer) => {
        const response = responseOver(request, socket);
        if (response) void this.#serve(request, response, { socket, head });
      }) as never,
    );
    return server;
  }

  async #serve(
    request: Incoming,
    response: Outgoing,
    line: { socket: Duplex; head: Buffer } | undefined,
  ): Promise<void> {
    response.on('error', () => {}); // the visitor is gone; 'close' follows and ends the exchange
    try {
      const parsed = parseRequest(request, this.#options.domain);
      const { target: path, token } = takeToken(parsed.target);
      const isWebSocket = line !== undefined || parsed.isExtendedConnect;
      const method = request.method ?? '';
      const shareId = parsed.place.kind === 'share' ? parsed.place.shareId : undefined;
      const judge = async () => {
        const target = await this.#find(parsed);
        return { target, access: await this.#access.judge(target, { ...parsed, method, token, isWebSocket }) };
      };
      await this.#shares.judged(shareId, judge, ({ target, access }) => {
        if (isGone(response)) return;
        const next = ownPage(parsed, path, target, access, request.headers.accept);
        if (typeof next !== 'string') sendPage(request, response, next);
        else {
          const hold = access.kind === 'allowed' ? access.hold : undefined;
          this.#pass(target, next, { request, response, path, parsed, line, isWebSocket, hold });
        }
      });
    } catch (error) {
      if (!(error instanceof InstaVMError)) this.#options.log.warn({ err: error }, 'a preview request failed');
      const known =
        error instanceof InstaVMError
          ? error
          : new InstaVMError('internal', 'This is a fault of the server.', { cause: error });
      if (!isGone(response)) sendPage(request, response, errorPage(known, request.headers.accept));
    }
  }

  /** @throws share_not_found, misdirected_request */
  async #find({ place }: Parsed): Promise<PreviewTarget> {
    const { targets } = this.#options;
    const target = await (place.kind === 'share' ? targets.find(place.shareId) : targets.findDomain(place.domain));
    if (target) return target;
    throw place.kind === 'share' ? notFound() : misdirected();
  }

  /** Returns at once: a frame that waited would keep the whole request in memory for as long as its WebSocket is open. */
  #pass(
    target: PreviewTarget,
    by: Admission,
    { request, response, path, parsed, line, isWebSocket, hold }: Passing,
  ): void {
    const exchange = line?.socket ?? (isHttp2(response) ? response.stream : response);
    const end = (): void => void exchange.destroy();
    const share = this.#shares.enter(target, by, end);
    const release = hold?.(end);
    // Reset over HTTP/2: until what it sent before is read, which may be never, it is not closed. Not at once, for it may be us who are at it.
    exchange.once('aborted', () => setImmediate(end));
    const rest = isHttp2(response) && response.stream.session && this.#quiet.get(response.stream.session)?.();
    exchange.once('close', () => {
      if (rest) rest();
      release?.();
      share.leave();
    });
    const forwarding: Forwarding = {
      request,
      response,
      path,
      visit: {
        clientAddress: parsed.clientAddress,
        authority: parsed.authority,
        hostName: parsed.hostName,
        serviceAuthority: target.serviceAuthority,
        httpVersion: request.httpVersion,
      },
      pool: share.pool,
      timeouts: { answerMs: this.#limits.answerTimeoutMs, idleMs: this.#limits.idleTimeoutMs },
    };
    if (isWebSocket) forwardWebSocket(forwarding, line);
    else forward(forwarding);
  }
}

type Passing = {
  readonly request: Incoming;
  readonly response: Outgoing;
  readonly path: string;
  readonly parsed: Parsed;
  readonly line: { readonly socket: Duplex; readonly head: Buffer } | undefined;
  readonly isWebSocket: boolean;
  readonly hold: KeyHold | undefined;
};

const notFound = (): InstaVMError =>
  new InstaVMError('share_not_found', 'No share has this address: it was revoked, or its sandbox is gone.');

/** The answer that is ours to give, or why the request may go to the service. */
function ownPage(
  parsed: Parsed,
  path: string,
  target: PreviewTarget,
  access: Access,
  accept: string | undefined,
): Page | Admission {
  const here = `https://${parsed.authority}`;
  const [pathname = '', query = ''] = path.split('?', 2);
  if (pathname === PRIVATE_PAGE) {
    if (target.isPublic || access.kind === 'allowed') return redirect(`${here}/`, 'share_open');
    if (access.kind === 'denied') return privatePage(query === 'link_expired' ? 'link_expired' : access.reason, accept);
  }
  if (access.kind === 'enter') return redirect(`${here}${path}`, 'share_open', { 'set-cookie': access.setCookie });
  if (access.kind === 'denied') {
    const why = access.reason === 'link_expired' ? '?link_expired' : '';
    return redirect(`${here}${PRIVATE_PAGE}${why}`, 'share_private');
  }
  if (!pathname.startsWith('/.instavm/')) return access.by;
  return errorPage(
    new InstaVMError('route_not_found', 'Paths under /.instavm/ are not passed to the service.'),
    accept,
  );
}

/**
 * Ends a session that is idle, streams or not: pages of ours may wait for a visitor who does not take them.
 * @returns for an exchange, which may be quiet for long; returns what is to be called at its end
 */
function closeWhenIdle(session: ServerHttp2Session, socket: TLSSocket, idleMs: number): () => () => void {
  let exchanges = 0;
  session.on('timeout', () => {
    if (exchanges > 0) return;
    session.close();
    // It may wait for streams that nobody takes, or for a visitor who went away without a word.
    destroyLater(socket, idleMs, () => exchanges === 0);
  });
  session.setTimeout(idleMs);
  // Node may wait without end to say its last word to one who broke the protocol and went away; then nothing is heard of the session any more.
  const watch = setInterval(() => {
    if (!session.destroyed) return;
    clearInterval(watch);
    destroyLater(socket, idleMs);
  }, idleMs);
  watch.unref();
  socket.once('close', () => clearInterval(watch));
  return () => {
    exchanges += 1;
    return () => {
      exchanges -= 1;
      // Once it has run out, nothing else starts it again.
      if (exchanges === 0) session.setTimeout(idleMs);
    };
  };
}

function destroyLater(socket: Socket, ms: number, isStillOver = () => true): void {
  const timer = setTimeout(() => {
    if (isStillOver()) socket.destroy();
  }, ms);
  timer.unref();
  socket.once('close', () => clearTimeout(timer));
}

function refuseConnect(request: IncomingMessage, socket: Duplex): void {
  const response = responseOver(request, socket);
  const error = new InstaVMError('malformed_request', 'This is no forward proxy: CONNECT is not answered.');
  if (response) sendPage(request, response, errorPage(error, request.headers.accept));
}

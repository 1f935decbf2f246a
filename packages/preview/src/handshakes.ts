/**
 * Which certificate a TLS handshake gets: the proof of an order under way for `acme-tls/1` (RFC 8737 §3), that of a custom domain for its name, and
 * the listener's own for all others. A custom domain without a certificate is refused: the listener's own would only raise an alarm.
 */
import type { Http2SecureServer, SecureServerOptions } from 'node:http2';
import type { Socket } from 'node:net';
import type { SecureContext, TLSSocket } from 'node:tls';
import type { PreviewTargets } from './targets.ts';

export const ACME_TLS = 'acme-tls/1';
/** A fatal alert, before anything is encrypted: unrecognized_name (RFC 6066 §3). Node has no call for it. */
const UNRECOGNIZED_NAME = Buffer.from([0x15, 0x03, 0x03, 0x00, 0x02, 0x02, 0x70]);

/** For the other side to close, too. */
const LINGER_MS = 5_000;

export type HandshakeOptions = {
  readonly previewDomain: string;
  readonly targets: Pick<PreviewTargets, 'findDomain'>;
  /** Of custom domains. */
  readonly certificateOf: (name: string) => SecureContext | undefined;
  /** Of orders under way. */
  readonly proofOf: (name: string) => SecureContext | undefined;
};

export class Handshakes {
  readonly #options: HandshakeOptions;
  /** What is below a TLS socket, by its two ends. */
  readonly #raw = new Map<string, Socket>();
  readonly #proving = new WeakSet<TLSSocket>();
  /** Shown a proof because there is nothing else, though they may not have asked for it. */
  readonly #unproven = new WeakSet<TLSSocket>();

  constructor(options: HandshakeOptions) {
    this.#options = options;
  }

  /** For the server's constructor. With TLS 1.3 the protocol is asked for first, with TLS 1.2 the name. */
  get callbacks(): Pick<SecureServerOptions, 'SNICallback' | 'ALPNCallback'> {
    const handshakes = this;
    return {
      SNICallback(this: TLSSocket, name, done) {
        handshakes.#certificate(this, name.toLowerCase()).then((context) => done(null, context), done);
      },
      ALPNCallback(this: TLSSocket, { servername, protocols }) {
        // The types promise a name; without one it is false.
        return handshakes.#protocol(this, String(servername || '').toLowerCase(), protocols);
      },
    } as Pick<SecureServerOptions, 'SNICallback' | 'ALPNCallback'>;
  }

  /** Keeps connections that only prove something from being served. */
  attach(server: Http2SecureServer): void {
    server.on('connection', (socket: Socket) => {
      const ends = endsOf(socket);
      this.#raw.set(ends, socket);
      socket.once('close', () => this.#raw.delete(ends));
    });
    const serving = server.listeners('secureConnection');
    server.removeAllListeners('secureConnection');
    server.on('secureConnection', (socket) => {
      if (this.#proving.has(socket) || this.#unproven.has(socket)) {
        socket.on('error', () => socket.destroy());
        socket.setTimeout(LINGER_MS, () => socket.destroy());
        socket.resume().end();
      } else {
        for (const serve of serving) serve.call(server, socket);
      }
    });
  }

  /** @returns undefined: the listener's own. @throws when the handshake shall fail */
  async #certificate(socket: TLSSocket, name: string): Promise<SecureContext | undefined> {
    const { previewDomain, targets, certificateOf, proofOf } = this.#options;
    if (this.#proving.has(socket) || name === previewDomain || name.endsWith(`.${previewDomain}`)) return undefined;
    const own = certificateOf(name);
    if (own) return own;
    const proof = proofOf(name);
    if (proof) {
      this.#unproven.add(socket);
      return proof;
    }
    if (!(await targets.findDomain(name))) return undefined;
    await this.#refuse(socket);
    throw new Error(`the custom domain ${name} has no certificate yet`);
  }

  #protocol(socket: TLSSocket, name: string, offered: readonly string[]): string | undefined {
    const { certificateOf, proofOf } = this.#options;
    const proof = proofOf(name);
    if (offered.includes(ACME_TLS)) {
      if (!proof || offered.length > 1) return undefined;
      this.#proving.add(socket);
      socket.setKeyCert(proof);
      return ACME_TLS;
    }
    if (proof && !certificateOf(name)) return undefined;
    return ['h2', 'http/1.1'].find((protocol) => offered.includes(protocol));
  }

  async #refuse(socket: TLSSocket): Promise<void> {
    const raw = this.#raw.get(endsOf(socket));
    if (!raw || raw.destroyed) return;
    await new Promise((resolve) => raw.write(UNRECOGNIZED_NAME, resolve));
  }
}

const endsOf = ({ remoteAddress, remotePort, localAddress }: Socket): string =>
  `${remoteAddress} ${remotePort} ${localAddress}`;

/** Port 80: HTTP-01 (RFC 8555 §8.3), and for everybody else the way to https. Says nothing else, and reads no bodies. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { hostNameOf } from '../hosts.ts';
import type { Proof, Solver } from './solver.ts';

const CHALLENGES = '/.well-known/acme-challenge/';
const MAX_TARGET_CHARS = 4_096;
const CONNECTIONS = 1_024;
const REQUEST_TIMEOUT_MS = 10_000;

export class HttpListener implements Solver {
  readonly type = 'http-01';
  readonly #proofs = new Map<string, string>();
  readonly #server: Server;
  readonly #httpsPort: () => number;

  /**
   * @param httpsPort where the same hosts are served over TLS
   * @throws when the address is taken
   */
  static async listen({ host, port }: { host: string; port: number }, httpsPort: () => number): Promise<HttpListener> {
    const listener = new HttpListener(httpsPort);
    listener.#server.listen(port, host);
    await once(listener.#server, 'listening');
    return listener;
  }

  private constructor(httpsPort: () => number) {
    this.#httpsPort = httpsPort;
    this.#server = createServer(
      { headersTimeout: REQUEST_TIMEOUT_MS, requestTimeout: REQUEST_TIMEOUT_MS, keepAliveTimeout: 1_000 },
      (request, response) => this.#answer(request, response),
    );
    this.#server.maxConnections = CONNECTIONS;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  async present({ domain, token, value }: Proof): Promise<() => Promise<void>> {
    const place = `${domain}/${token}`;
    this.#proofs.set(place, value);
    return async () => {
      this.#proofs.delete(place);
    };
  }

  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    response.setHeader('connection', 'close');
    const target = request.url ?? '';
    const hostName = hostNameOf(request.headers.host ?? '');
    if (hostName === undefined || !/^\/[\x21-\x7e]*$/.test(target) || target.length > MAX_TARGET_CHARS) {
      response.writeHead(400).end();
      return;
    }
    if (target.startsWith(CHALLENGES)) {
      const proof = this.#proofs.get(`${hostName}/${target.slice(CHALLENGES.length)}`);
      if (proof === undefined) response.writeHead(404).end();
      else response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(proof);
      return;
    }
    const port = this.#httpsPort();
    const location = `https://${hostName}${port === 443 ? '' : `:${port}`}${target}`;
    response.writeHead(308, { location, 'content-length': '0' }).end();
  }
}

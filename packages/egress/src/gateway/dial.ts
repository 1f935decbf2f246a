/**
 * Connections to addresses that the policy has seen, and to nothing else: no name is resolved here. Straight, several addresses as RFC 8305 says,
 * or through the host's own HTTP proxy.
 */
import { once } from 'node:events';
import { request } from 'node:http';
import { connect, isIPv6, type Socket } from 'node:net';

/** How long one address of several may take before the next is tried. */
const ATTEMPT_MS = 500;

/** What a program is told when nothing could be connected; the words of the egress channel. */
export type DialFailure = 'connection_refused' | 'connect_timeout' | 'unreachable' | 'proxy_failed';

export class DialError extends Error {
  override readonly name = 'DialError';
  readonly failure: DialFailure;

  constructor(failure: DialFailure, message: string, options?: ErrorOptions) {
    super(message, options);
    this.failure = failure;
  }
}

/** A connection, and which of the addresses it leads to. Its owner listens for errors, but none that comes earlier ends the process. */
export type Dialled = { readonly socket: Socket; readonly address: string };

/**
 * @param addresses not empty; the first family is preferred
 * @param signal gives the attempt up, also when it is a deadline's
 * @throws DialError
 */
export async function dial(addresses: readonly string[], port: number, signal: AbortSignal): Promise<Dialled> {
  const socket = connect({
    host: 'checked.invalid',
    port,
    allowHalfOpen: true,
    noDelay: true,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: ATTEMPT_MS,
    // Also what stands in for a look-up: these addresses, whatever the name.
    lookup: (_name, _options, answer) =>
      answer(null, addresses.map((address) => ({ address, family: isIPv6(address) ? 6 : 4 })) as never),
  });
  socket.on('error', () => {});
  try {
    await once(socket, 'connect', { signal });
  } catch (error) {
    socket.destroy();
    throw dialError(error, signal);
  }
  const { remoteAddress } = socket;
  if (remoteAddress !== undefined) return { socket, address: remoteAddress };
  socket.destroy();
  throw new DialError('connection_refused', 'the destination reset the connection at once');
}

/** Through an HTTP proxy (RFC 9110 §9.3.6), which is asked for an address, never for a name: it may not decide where a name leads. @throws DialError */
export async function dialThroughProxy(
  proxy: URL,
  addresses: readonly string[],
  port: number,
  signal: AbortSignal,
): Promise<Dialled> {
  let failure: DialError | undefined;
  for (const address of addresses) {
    try {
      return { socket: await tunnel(proxy, `${isIPv6(address) ? `[${address}]` : address}:${port}`, signal), address };
    } catch (error) {
      failure = error instanceof DialError ? error : proxyError(error, signal);
      if (signal.aborted) break;
    }
  }
  throw failure ?? new DialError('unreachable', 'there was no address to connect to');
}

/** @throws DialError, or what the request itself met */
function tunnel(proxy: URL, authority: string, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const credentials = Buffer.from(`${decodeURIComponent(proxy.username)}:${decodeURIComponent(proxy.password)}`);
  const asked = request({
    host: proxy.hostname,
    port: proxy.port === '' ? 80 : proxy.port,
    method: 'CONNECT',
    path: authority,
    headers: {
      host: authority,
      ...(proxy.username === '' ? {} : { 'proxy-authorization': `Basic ${credentials.toString('base64')}` }),
    },
    // Nothing of it is kept for another request.
    agent: false,
    signal,
  });
  asked.once('connect', ({ statusCode }, socket: Socket, head: Buffer) => {
    socket.on('error', () => {});
    if (statusCode !== undefined && statusCode >= 200 && statusCode < 300) {
      socket.allowHalfOpen = true;
      socket.setNoDelay(true);
      if (head.length > 0) socket.unshift(head);
      resolve(socket);
      return;
    }
    socket.destroy();
    const failure = statusCode === 504 ? 'connect_timeout' : statusCode === 503 ? 'unreachable' : 'proxy_failed';
    reject(new DialError(failure, `the host's proxy answered ${statusCode} to CONNECT ${authority}`));
  });
  asked.once('response', (response) => {
    response.destroy();
    reject(new DialError('proxy_failed', `the host's proxy does not know CONNECT (${response.statusCode})`));
  });
  asked.on('error', reject);
  asked.end();
  return promise;
}

const REFUSALS: readonly unknown[] = ['ECONNREFUSED', 'ECONNRESET'];

function dialError(error: unknown, signal: AbortSignal): DialError {
  if (signal.aborted) return late(error);
  // Of several addresses each had a reason of its own; the last speaks.
  const last = error instanceof AggregateError ? error.errors.at(-1) : error;
  const { code } = last as NodeJS.ErrnoException;
  if (REFUSALS.includes(code))
    return new DialError('connection_refused', 'the destination refused the connection', { cause: error });
  if (code === 'ETIMEDOUT') return late(error);
  return new DialError('unreachable', `the destination cannot be reached (${code ?? 'unknown'})`, { cause: error });
}

const late = (cause: unknown): DialError =>
  new DialError('connect_timeout', 'the destination did not answer in time', { cause });

/** What befell the way to the proxy says nothing of the destination. */
function proxyError(error: unknown, signal: AbortSignal): DialError {
  if (signal.aborted) return late(error);
  const { code } = error as NodeJS.ErrnoException;
  return new DialError('proxy_failed', `the host's proxy failed (${code ?? 'unknown'})`, { cause: error });
}

/** Tunnels to ports of the guest: `CONNECT localhost:PORT` on the control channel's HTTP/2 (RFC 9113 §8.5). */
import type { ClientHttp2Session, ClientHttp2Stream, IncomingHttpHeaders } from 'node:http2';
import type { Duplex } from 'node:stream';
import { AgentError } from './errors.ts';
import { withoutEmptyWrites, withoutFalseEnds } from './http2-quirks.ts';
import type { SharedWindow } from './shared-window.ts';

export type TunnelOptions = {
  /** Gives up the attempt, not the tunnel. */
  readonly signal?: AbortSignal;
  readonly deadlineMs: number;
};

const REASONS: Readonly<Record<string, { readonly reason: string; readonly message: string }>> = {
  connection_refused: { reason: 'port_refused', message: 'nothing in the sandbox listens on port' },
  connect_timeout: { reason: 'deadline', message: 'the sandbox accepts no more connections on port' },
  too_many_tunnels: {
    reason: 'too_many_tunnels',
    message: 'the sandbox has too many open connections for one more to port',
  },
};

/**
 * Opens a connection to a port of the guest's loopback addresses. What the program ends is an `end`, what it resets an error
 * `connection_reset` without one; `end()` and `destroy()` do the same to it. Errors need no listener.
 * @throws AgentError `port_refused`, `deadline`, `too_many_tunnels`, `channel_lost`, `cancelled`
 */
export function openTunnel(
  session: ClientHttp2Session,
  window: SharedWindow,
  port: number,
  { signal, deadlineMs }: TunnelOptions,
): Promise<Duplex> {
  const isLost = (): boolean => session.destroyed || session.closed;
  if (isLost()) return Promise.reject(new AgentError('channel_lost', 'the channel to the guest is closed'));
  if (signal?.aborted === true) return Promise.reject(new AgentError('cancelled', 'the attempt was given up'));
  const request = session.request({ ':method': 'CONNECT', ':authority': `localhost:${port}` }, { endStream: false });
  window.share(request);
  const stream = withoutEmptyWrites(withoutFalseEnds(request, () => endOf(session, request)));
  return new Promise((resolve, reject) => {
    const settle = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      stream.off('response', onResponse).off('close', onClose);
    };
    const fail = (error: AgentError): void => {
      settle();
      stream.destroy();
      reject(error);
    };
    const onAbort = (): void => fail(new AgentError('cancelled', 'the attempt was given up'));
    const onClose = (): void =>
      fail(
        isLost()
          ? new AgentError('channel_lost', 'the channel to the guest was lost')
          : new AgentError('protocol', `the guest refused a tunnel without an answer (HTTP/2 code ${stream.rstCode})`),
      );
    const onResponse = (headers: IncomingHttpHeaders & { ':status'?: number }): void => {
      if (headers[':status'] === 200) {
        settle();
        resolve(stream);
      } else fail(refusal(headers, port));
    };
    const timer = setTimeout(
      () => fail(new AgentError('deadline', `port ${port} of the sandbox did not answer within ${deadlineMs} ms`)),
      deadlineMs,
    );
    signal?.addEventListener('abort', onAbort);
    stream.on('response', onResponse).on('close', onClose);
  });
}

function refusal(headers: IncomingHttpHeaders & { ':status'?: number }, port: number): AgentError {
  const word = headers['instavm-reason'];
  const known = typeof word === 'string' && Object.hasOwn(REASONS, word) ? REASONS[word] : undefined;
  return known === undefined
    ? new AgentError('protocol', `the guest refused a tunnel to port ${port} with status ${headers[':status']}`)
    : new AgentError(known.reason, `${known.message} ${port}`);
}

/** @returns null for one that was ended here */
function endOf(session: ClientHttp2Session, stream: ClientHttp2Stream): AgentError | null {
  if (session.destroyed) return new AgentError('channel_lost', 'the channel to the guest was lost');
  return stream.closed ? new AgentError('connection_reset', 'the program in the sandbox reset the connection') : null;
}

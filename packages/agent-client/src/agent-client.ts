/**
 * The typed client of one guest agent over one byte stream: SYNC exchange, then gRPC on HTTP/2 with prior knowledge. It does
 * not retry and has no policy; a lost stream ends it.
 */
import { type ClientHttp2Session, connect } from 'node:http2';
import type { Duplex } from 'node:stream';
import { type Client, createClient, type Interceptor, type Transport } from '@connectrpc/connect';
import { createGrpcTransport, type GrpcTransportOptions } from '@connectrpc/connect-node';
import { AgentError } from './errors.ts';
import { Exec, Files, Lifecycle, Pty } from './gen/agent_pb.js';
import { synchronize } from './handshake.ts';
import { withoutLostAnswers, withResettingClose } from './http2-quirks.ts';
import { SharedWindow, WHOLE_WINDOW_BYTES } from './shared-window.ts';
import { openTunnel, type TunnelOptions } from './tunnel.ts';

/** Bounds what is on its way. Node gives it back as data comes, read or not, so that streams that stall take nothing from the rest. */
const CONNECTION_WINDOW_BYTES = 64 * 1024 * 1024;
const MAX_FRAME_BYTES = 256 * 1024;
/** The largest single message that a guest may send; contents come in chunks far below. */
const READ_MAX_BYTES = 4 * 1024 * 1024;
/** MB. Of tunnels whose program does not read: each keeps a chunk and what Node buffers. Beyond, new streams are refused. */
const MAX_SESSION_MEMORY = 256;
const AUTHORITY = 'http://guest';

export class AgentClient {
  readonly lifecycle: Client<typeof Lifecycle>;
  readonly exec: Client<typeof Exec>;
  readonly files: Client<typeof Files>;
  readonly pty: Client<typeof Pty>;
  /** Settles when the stream is lost or closed. Never rejects. */
  readonly closed: Promise<void>;
  readonly #session: ClientHttp2Session;
  readonly #window: SharedWindow;
  readonly #stream: Duplex;

  private constructor(stream: Duplex, session: ClientHttp2Session, interceptors: readonly Interceptor[]) {
    this.#stream = stream;
    this.#session = session;
    this.#window = new SharedWindow(session);
    this.closed = new Promise((resolve) => {
      session.once('close', () => {
        stream.destroy();
        resolve();
      });
    });
    const transport = withNamedErrors(
      createGrpcTransport({
        baseUrl: AUTHORITY,
        sessionManager: onSession(session, this.#window),
        readMaxBytes: READ_MAX_BYTES,
        acceptCompression: [],
        interceptors: [...interceptors],
      }),
      () => session.destroyed || session.closed,
    );
    this.lifecycle = createClient(Lifecycle, transport);
    this.exec = createClient(Exec, transport);
    this.files = createClient(Files, transport);
    this.pty = createClient(Pty, transport);
  }

  /**
   * Takes over `stream`; on failure it is destroyed.
   * @param interceptors of every call, the outermost first
   * @throws AgentError `deadline`, `channel_lost`
   */
  static async open(
    stream: Duplex,
    deadlineMs: number,
    interceptors: readonly Interceptor[] = [],
  ): Promise<AgentClient> {
    try {
      await synchronize(stream, deadlineMs);
    } catch (error) {
      stream.destroy();
      throw error;
    }
    const session = connect(AUTHORITY, {
      createConnection: () => stream,
      settings: { initialWindowSize: WHOLE_WINDOW_BYTES, maxFrameSize: MAX_FRAME_BYTES, enablePush: false },
      maxSessionMemory: MAX_SESSION_MEMORY,
    });
    // Every call in flight reports the loss on its own stream; without a listener it would end the process.
    session.on('error', () => {});
    session.once('connect', () => session.setLocalWindowSize(CONNECTION_WINDOW_BYTES));
    const agent = new AgentClient(stream, session, interceptors);
    // Node reads what came behind the ACKN in the next tick, also into a session that is closed by then: that would end the process.
    await new Promise<void>((resolve) => process.nextTick(resolve));
    return agent;
  }

  /**
   * A connection to a port on which a program of the guest listens, at its loopback addresses. Either side may end before the other.
   * `destroy()` resets it; errors of its own are `connection_reset` and `channel_lost`, come without an `end` and need no listener.
   * @throws AgentError `port_refused`, `deadline`, `too_many_tunnels`, `channel_lost`, `cancelled`
   */
  tunnel(port: number, options: TunnelOptions): Promise<Duplex> {
    return openTunnel(this.#session, this.#window, port, options);
  }

  /** Ends every call in flight on this side. The guest learns of a lost channel, not of cancelled calls: commands go on. Idempotent. */
  close(): void {
    this.#stream.destroy();
    this.#session.destroy();
  }
}

/** Calls that may answer with any amount. A terminal's viewer is sent no more than it acknowledges. */
const BULK: ReadonlySet<string> = new Set(
  [Exec.method.run, Exec.method.runPython, Files.method.read, Files.method.tarOut].map(
    ({ parent, name }) => `/${parent.typeName}/${name}`,
  ),
);

function onSession(
  session: ClientHttp2Session,
  window: SharedWindow,
): NonNullable<GrpcTransportOptions['sessionManager']> {
  return {
    authority: AUTHORITY,
    async request(method, path, headers, options) {
      if (session.destroyed || session.closed)
        throw new AgentError('channel_lost', 'the channel to the guest is closed');
      const call = session.request({ ...headers, ':method': method, ':path': path }, options);
      if (BULK.has(path)) window.share(call);
      withoutLostAnswers(call, () => new AgentError('protocol', 'the guest ended a call without an answer'));
      return withResettingClose(call, () => new AgentError('cancelled', 'the call was given up'));
    },
    notifyResponseByteRead() {},
  };
}

/** Errors of calls, and of the streams they answer with, carry the guest's reason. */
function withNamedErrors(transport: Transport, isLost: () => boolean): Transport {
  const named = (error: unknown): never => {
    const failure = AgentError.from(error);
    // An answer that was cut off by the loss of the channel is no fault of the guest's.
    if (failure.reason === 'protocol' && isLost())
      throw new AgentError('channel_lost', 'the channel to the guest was lost', { cause: error });
    throw failure;
  };
  return {
    unary: (...call) => transport.unary(...call).catch(named),
    stream: async (...call) => {
      const response = await transport.stream(...call).catch(named);
      return { ...response, message: relay(response.message, named) };
    },
  };
}

async function* relay<M>(messages: AsyncIterable<M>, onError: (error: unknown) => never): AsyncGenerator<M> {
  try {
    yield* messages;
  } catch (error) {
    onError(error);
  }
}

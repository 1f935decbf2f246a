/** One WebSocket of a terminal's viewer, from its attachment to its loss. */
import WebSocket from 'ws';
import { deferred } from './deferred.ts';
import { InstaVMError } from './errors.ts';
import { jsonFrame, whenRefused } from './web-socket.ts';

export type PtyFrame =
  | Uint8Array
  /** First: the output begins at this offset. */
  | { readonly type: 'attached'; readonly offset: number }
  | { readonly type: 'exit'; readonly exitCode: number; readonly signal: string | null }
  | { readonly type: 'resized'; readonly cols: number; readonly rows: number }
  | { readonly type: 'skipped'; readonly offset: number };

/** Larger than any frame of the server. */
const MAX_FRAME_BYTES = 1024 * 1024;
/** The server pings every 20 s; one that is silent for this long is gone, whatever TCP thinks. */
const SILENCE_MS = 65_000;
const OPEN_DEADLINE_MS = 30_000;
const CLOSE_UNAUTHENTICATED = 4401;

export class PtyConnection {
  /** Settles when the viewer is attached. Rejects with what the server answered instead. */
  readonly attached: Promise<void>;
  /** Settles when the connection has closed, with the reason that the server gave, one of its error codes, or none. Never rejects. */
  readonly lost: Promise<string>;
  readonly #socket: WebSocket;

  constructor(
    target: { readonly url: string; readonly headers: Readonly<Record<string, string>> },
    onFrame: (frame: PtyFrame) => void,
  ) {
    const attached = deferred<void>();
    const lost = deferred<string>();
    this.attached = attached.promise;
    this.lost = lost.promise;
    this.attached.catch(() => {});
    const socket = new WebSocket(target.url, {
      headers: target.headers,
      perMessageDeflate: false,
      maxPayload: MAX_FRAME_BYTES,
      handshakeTimeout: OPEN_DEADLINE_MS,
    });
    this.#socket = socket;
    const silence = setTimeout(() => socket.terminate(), SILENCE_MS).unref();
    socket.on('ping', () => silence.refresh());
    socket.on('message', (data, isBinary) => {
      silence.refresh();
      if (isBinary) return onFrame(data as Buffer);
      const frame = jsonFrame(data.toString());
      if (frame?.type === 'attached') {
        // Before any output, which may be in the same packet.
        onFrame({ type: 'attached', offset: Number(frame.offset) });
        attached.resolve();
      } else if (frame?.type === 'exit')
        onFrame({
          type: 'exit',
          exitCode: Number(frame.exit_code),
          signal: typeof frame.signal === 'string' ? frame.signal : null,
        });
      else if (frame?.type === 'resized')
        onFrame({ type: 'resized', cols: Number(frame.cols), rows: Number(frame.rows) });
      else if (frame?.type === 'skipped') onFrame({ type: 'skipped', offset: Number(frame.offset) });
    });
    whenRefused(socket, (refusal) => {
      attached.reject(refusal);
      socket.terminate();
    });
    let cause: Error | undefined;
    socket.on('error', (error) => {
      cause = error;
    });
    socket.on('close', (code, reason) => {
      clearTimeout(silence);
      attached.reject(closeError(code, reason.toString(), cause));
      lost.resolve(reason.toString());
    });
  }

  /** One that is being closed takes nothing any more. */
  get isOpen(): boolean {
    return this.#socket.readyState === WebSocket.OPEN;
  }

  /** Resolves when the bytes were handed to the connection. */
  send(bytes: Uint8Array): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#socket.send(bytes, { binary: true }, (error) => {
        if (error) reject(new InstaVMError('connection_lost', error.message, { retryable: 'unknown', cause: error }));
        else resolve();
      });
    });
  }

  sendText(frame: object): void {
    if (this.isOpen) this.#socket.send(JSON.stringify(frame), () => {});
  }

  close(): void {
    this.#socket.terminate();
  }
}

/** The server says why it closes before it has attached (contract §9); the reason is one of its error codes. */
function closeError(code: number, reason: string, cause: Error | undefined): InstaVMError {
  if (code === CLOSE_UNAUTHENTICATED)
    return new InstaVMError('unauthenticated', 'the API key is missing or not valid', { status: 401 });
  const { message = `the connection closed (${code})` } = cause ?? {};
  const hint =
    (cause as NodeJS.ErrnoException | undefined)?.code === 'ECONNREFUSED'
      ? 'Is the daemon running? Start it with: npm start'
      : undefined;
  return new InstaVMError(reason === '' ? 'connection_failed' : reason, `no terminal connection: ${message}`, {
    retryable: 'unknown',
    cause,
    hint,
  });
}

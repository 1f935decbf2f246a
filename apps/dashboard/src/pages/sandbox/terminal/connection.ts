/**
 * One viewer of a terminal that lives in the sandbox (docs/reference/pty.md). It knows how far the screen has read; when the
 * connection is lost it attaches again there, so nothing is missed or shown twice.
 */
import type { Terminal } from '@xterm/xterm';
import { ApiError, request } from '../../../api/http.ts';

export type ConnectionState =
  | { readonly kind: 'connecting' | 'attached' | 'gone' }
  | { readonly kind: 'waiting'; readonly reason: string }
  | { readonly kind: 'exited'; readonly exitCode: number | null; readonly signal: string | null };

type Frame =
  | { readonly type: 'attached'; readonly offset: number; readonly pty?: { readonly end_offset: number } }
  | { readonly type: 'skipped'; readonly offset: number }
  | { readonly type: 'resized'; readonly cols: number; readonly rows: number }
  | { readonly type: 'exit'; readonly exit_code: number | null; readonly signal: string | null };

const RETRY_MS = [250, 1_000, 2_000, 5_000];
/** The server wants one at least every 64 KiB. */
const ACK_STEP_BYTES = 32 * 1024;
/** Typed while the connection is away. */
const MAX_PENDING_CHARACTERS = 4_096;

export class TerminalConnection {
  readonly #path: string;
  readonly #terminal: Terminal;
  readonly #onState: (state: ConnectionState) => void;
  #socket: WebSocket | undefined;
  /** Of the next byte; undefined until the first attachment: from the oldest that is kept. */
  #offset: number | undefined;
  #acknowledged = 0;
  /** Output before this was written before we came: the screen's answers to it have been given long ago. */
  #replayedUntil = 0;
  #pending = '';
  /** What is typed before goes out after what waits for it. */
  #isAttached = false;
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #isOver = false;

  constructor(sandboxId: string, ptyId: string, terminal: Terminal, onState: (state: ConnectionState) => void) {
    this.#path = `/v1/sessions/${encodeURIComponent(sandboxId)}/pty`;
    this.#terminal = terminal;
    this.#onState = onState;
    terminal.onData((text) => this.#type(text));
    terminal.onBinary((text) => this.#send(Uint8Array.from(text, (character) => character.charCodeAt(0))));
    terminal.onResize(({ cols, rows }) => this.#send(JSON.stringify({ type: 'resize', cols, rows })));
    void this.#connect(ptyId);
  }

  /** Ends the viewer, not the terminal. */
  close(): void {
    this.#isOver = true;
    clearTimeout(this.#retry);
    const socket = this.#socket;
    if (socket === undefined) return;
    socket.onmessage = null;
    // Browsers complain in the console about one that is closed before it is open.
    if (socket.readyState === WebSocket.CONNECTING) socket.onopen = () => socket.close();
    else socket.close();
  }

  async #connect(ptyId: string): Promise<void> {
    this.#onState({ kind: 'connecting' });
    const id = encodeURIComponent(ptyId);
    try {
      const { token } = await request<{ token: string }>('POST', `${this.#path}/sessions/${id}/token`, { json: {} });
      if (this.#isOver) return;
      const query = new URLSearchParams({ token, ack: 'true' });
      if (this.#offset !== undefined) query.set('offset', String(this.#offset));
      const socket = new WebSocket(`${location.origin.replace(/^http/, 'ws')}${this.#path}/${id}/connect?${query}`);
      socket.binaryType = 'arraybuffer';
      this.#socket = socket;
      socket.onmessage = ({ data }) => this.#take(data);
      // Some reasons are bare codes, which tell a person nothing.
      socket.onclose = ({ reason }) => this.#lost(ptyId, reason.includes(' ') ? reason : 'The connection was lost.');
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) this.#end({ kind: 'gone' });
      else this.#lost(ptyId, (error as Error).message);
    }
  }

  #lost(ptyId: string, reason: string): void {
    this.#isAttached = false;
    if (this.#isOver) return;
    this.#onState({ kind: 'waiting', reason });
    const delay = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
    this.#failures += 1;
    this.#retry = setTimeout(() => void this.#connect(ptyId), delay);
  }

  #take(data: unknown): void {
    if (data instanceof ArrayBuffer) this.#show(new Uint8Array(data));
    else this.#heed(JSON.parse(String(data)) as Frame);
  }

  #heed(frame: Frame): void {
    if (frame.type === 'attached') {
      this.#failures = 0;
      if (this.#offset === undefined && frame.pty && frame.pty.end_offset > frame.offset)
        this.#replayedUntil = frame.pty.end_offset;
      this.#offset = frame.offset;
      this.#acknowledged = frame.offset;
      this.#onState({ kind: 'attached' });
      const { cols, rows } = this.#terminal;
      this.#send(JSON.stringify({ type: 'resize', cols, rows }));
      if (this.#pending !== '') this.#send(new TextEncoder().encode(this.#pending));
      this.#pending = '';
      this.#isAttached = true;
    } else if (frame.type === 'skipped') this.#offset = frame.offset;
    else if (frame.type === 'exit') this.#end({ kind: 'exited', exitCode: frame.exit_code, signal: frame.signal });
  }

  #end(state: ConnectionState): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#onState(state);
  }

  #show(bytes: Uint8Array): void {
    const end = (this.#offset ?? 0) + bytes.length;
    this.#offset = end;
    this.#terminal.write(bytes, () => {
      if (end >= this.#replayedUntil) this.#replayedUntil = 0;
      if (end - this.#acknowledged < ACK_STEP_BYTES) return;
      this.#acknowledged = end;
      this.#send(JSON.stringify({ type: 'ack', offset: end }));
    });
  }

  #type(text: string): void {
    if (this.#replayedUntil > 0) return;
    if (this.#isAttached && this.#socket?.readyState === WebSocket.OPEN) this.#send(new TextEncoder().encode(text));
    else if (this.#pending.length + text.length <= MAX_PENDING_CHARACTERS) this.#pending += text;
  }

  #send(frame: string | Uint8Array<ArrayBuffer>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(frame);
  }
}

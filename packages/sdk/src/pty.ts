/**
 * Terminals of a sandbox. A `Pty` is one viewer: it follows the terminal's output by offset, attaches again by itself when its connection
 * drops, and neither misses nor repeats a byte. Only the program's own end counts as an end.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { ByteQueue } from './byte-queue.ts';
import { deferred } from './deferred.ts';
import { InstaVMError } from './errors.ts';
import type { HttpClient } from './http.ts';
import { PtyConnection, type PtyFrame } from './pty-connection.ts';

export type PtyOptions = {
  /** Columns and rows of the window; 80 and 24 when left out. */
  readonly cols?: number | undefined;
  readonly rows?: number | undefined;
  /** Chosen by the caller: 1 to 128 letters, digits, ".", "_", ":" or "-". */
  readonly id?: string | undefined;
  /** A program with its arguments; at most one of `argv`, `command` and `shell`, else a login shell. */
  readonly argv?: readonly string[] | undefined;
  /** A command line for bash. */
  readonly command?: string | undefined;
  /** A shell, run interactively as a login shell. */
  readonly shell?: string | undefined;
  readonly cwd?: string | undefined;
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** User name or number; root when left out. */
  readonly user?: string | undefined;
  /** Time without a viewer after which the terminal is ended; 300 when left out, 0 keeps it. */
  readonly lingerSeconds?: number | undefined;
};

export type PtyInfo = {
  readonly id: string;
  readonly alive: boolean;
  readonly pid: number;
  readonly exitCode: number | null;
  readonly signal: string | null;
  readonly cols: number;
  readonly rows: number;
  readonly argv: readonly string[];
  readonly user: string;
  /** Of the oldest byte of output that is kept, and of the next one. */
  readonly startOffset: number;
  readonly endOffset: number;
  readonly viewers: number;
  readonly lingerSeconds: number;
  readonly createdAt: Date;
};

export type AttachOptions = {
  /** Where to begin; the oldest byte that is kept when left out. */
  readonly offset?: number | undefined;
  readonly readOnly?: boolean | undefined;
  /** Told of what happens beside the output. */
  readonly onNotice?: ((notice: PtyNotice) => void) | undefined;
};

/** `skipped`: a read-only viewer was too slow; its output goes on at `offset`. */
export type PtyNotice =
  | { readonly type: 'resized'; readonly cols: number; readonly rows: number }
  | { readonly type: 'skipped'; readonly offset: number }
  | { readonly type: 'disconnected' }
  | { readonly type: 'reattached' };

/** `exitCode` is 128 + signal when a signal ended the program. */
export type PtyExit = { readonly exitCode: number; readonly signal: string | null };

/** A consumer that stops reading stops the program; this much may be on its way to it (docs/reference/pty.md). */
const ACK_STEP_BYTES = 64 * 1024;
/** More is never unacknowledged, so this mark is never reached; the server's window is what holds the program. */
const QUEUE_BYTES = Number.POSITIVE_INFINITY;
/** Typed while the connection is down. */
const MAX_TYPED_BYTES = 1024 * 1024;
const REATTACH_WITHIN_MS = 60_000;
const FIRST_RETRY_MS = 100;
const LONGEST_RETRY_MS = 5_000;
/** A killed program's end is behind output that nobody may ever read. */
const END_OF_KILLED_MS = 1_000;

export class Ptys {
  readonly #http: HttpClient;
  readonly #base: string;

  constructor(http: HttpClient, sandboxId: string) {
    this.#http = http;
    this.#base = `/v1/sessions/${encodeURIComponent(sandboxId)}/pty`;
  }

  /** Starts a program on a new terminal and attaches to it. @throws InstaVMError */
  async create(options: PtyOptions & Pick<AttachOptions, 'onNotice'> = {}): Promise<Pty> {
    const { cols, rows, id, argv, command, shell, cwd, env, user, lingerSeconds: linger_seconds, onNotice } = options;
    const json = { cols, rows, id, argv, command, shell, cwd, env, user, linger_seconds };
    const created = await this.#http.json<WirePty>({ method: 'POST', path: `${this.#base}/sessions`, json });
    try {
      return await this.attach(created.id, { offset: 0, onNotice });
    } catch (error) {
      await this.kill(created.id).catch(() => {});
      throw error;
    }
  }

  /** @throws InstaVMError `pty_not_found`, `too_many_viewers` */
  attach(id: string, options: AttachOptions = {}): Promise<Pty> {
    return Pty.attach(this.#http, this, id, `${this.#base}/${encodeURIComponent(id)}/connect`, options);
  }

  async list(): Promise<PtyInfo[]> {
    const path = `${this.#base}/sessions`;
    return (await this.#http.json<{ sessions: WirePty[] }>({ method: 'GET', path })).sessions.map(ptyInfo);
  }

  /** @throws InstaVMError `pty_not_found` */
  async get(id: string): Promise<PtyInfo> {
    return ptyInfo(await this.#http.json({ method: 'GET', path: this.#one(id) }));
  }

  async resize(id: string, cols: number, rows: number): Promise<void> {
    await this.#http.json({ method: 'POST', path: this.#one(id, '/resize'), json: { cols, rows } });
  }

  /** To the foreground program, or to every process of the terminal's session. */
  async signal(id: string, signal: string, options: { readonly session?: boolean } = {}): Promise<void> {
    await this.#http.json({ method: 'POST', path: this.#one(id, '/signal'), json: { signal, ...options } });
  }

  /** Ends the program and forgets the terminal; success when there is none. */
  async kill(id: string): Promise<void> {
    await this.#http.json({ method: 'DELETE', path: this.#one(id) });
  }

  /** For a browser, which cannot send a key with a WebSocket: opens this terminal once, within a minute. */
  async token(id: string, options: { readonly readOnly?: boolean } = {}): Promise<{ token: string; expiresAt: Date }> {
    const json = { read_only: options.readOnly };
    const answer = await this.#http.json<{ token: string; expires_at: string }>({
      method: 'POST',
      path: this.#one(id, '/token'),
      json,
    });
    return { token: answer.token, expiresAt: new Date(answer.expires_at) };
  }

  #one(id: string, rest = ''): string {
    return `${this.#base}/sessions/${encodeURIComponent(id)}${rest}`;
  }
}

export class Pty implements AsyncDisposable {
  readonly id: string;
  /** Bytes as they come, for one reader. A reader that stops stops the program. */
  readonly output: AsyncIterable<Uint8Array>;
  readonly #http: HttpClient;
  readonly #ptys: Ptys;
  readonly #path: string;
  readonly #options: AttachOptions;
  readonly #queue = new ByteQueue(QUEUE_BYTES, { full: () => {}, drained: () => {} });
  readonly #exit = deferred<PtyExit>();
  #connection: PtyConnection | undefined;
  /** Of the next byte to arrive, and up to where the reader has taken it. */
  #offset = 0;
  #taken = 0;
  #acknowledged = 0;
  #typed: Uint8Array[] = [];
  #isOver = false;
  /** Ends the pause before the next attempt to attach. */
  readonly #leaving = new AbortController();

  private constructor(http: HttpClient, ptys: Ptys, id: string, path: string, options: AttachOptions) {
    this.#http = http;
    this.#ptys = ptys;
    this.id = id;
    this.#path = path;
    this.#options = options;
    this.output = this.#read();
    // A caller that never waits must not end the process by an unhandled rejection.
    this.#exit.promise.catch(() => {});
  }

  static async attach(http: HttpClient, ptys: Ptys, id: string, path: string, options: AttachOptions): Promise<Pty> {
    const pty = new Pty(http, ptys, id, path, options);
    await pty.#connect(options.offset);
    return pty;
  }

  /** Of the next byte of output; where another viewer would go on. */
  get offset(): number {
    return this.#offset;
  }

  /**
   * Types. Resolves when the bytes were handed to the connection; while that is down they wait for the next one. What was handed to a
   * connection that then broke may or may not have arrived.
   * @throws InstaVMError `pty_ended` after the end, `connection_lost` when too much waits
   */
  async write(data: Uint8Array | string): Promise<void> {
    const bytes = typeof data === 'string' ? Buffer.from(data) : data;
    if (this.#isOver) throw new InstaVMError('pty_ended', 'the terminal has ended, or was detached');
    if (this.#connection?.isOpen) return this.#connection.send(bytes);
    const waiting = this.#typed.reduce((sum, piece) => sum + piece.length, 0);
    if (waiting + bytes.length > MAX_TYPED_BYTES)
      throw new InstaVMError('connection_lost', 'the terminal is not connected, and too much waits to be typed');
    this.#typed.push(bytes);
  }

  resize(cols: number, rows: number): Promise<void> {
    return this.#ptys.resize(this.id, cols, rows);
  }

  /** To the foreground program. */
  signal(signal: string): Promise<void> {
    return this.#ptys.signal(this.id, signal);
  }

  /** The end of the program. Its output may still wait for its reader. @throws InstaVMError when the terminal was lost or detached */
  wait(): Promise<PtyExit> {
    return this.#exit.promise;
  }

  /** Ends the program; success when it has ended already. */
  async kill(): Promise<void> {
    await this.#ptys.kill(this.id);
    // How it ended comes over a connection of its own, perhaps after the answer.
    const ended = this.#exit.promise.catch(() => {});
    if (this.#connection) await Promise.race([ended, sleep(END_OF_KILLED_MS, undefined, { ref: false })]);
    this.detach();
  }

  /** Leaves; the program goes on until the terminal has lingered without a viewer. Idempotent. */
  detach(): void {
    this.#fail(new InstaVMError('pty_detached', 'this viewer was detached from the terminal'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.detach();
  }

  async *#read(): AsyncGenerator<Uint8Array> {
    for await (const chunk of this.#queue) {
      yield chunk;
      this.#taken += chunk.length;
      if (this.#taken - this.#acknowledged < ACK_STEP_BYTES) continue;
      this.#acknowledged = this.#taken;
      this.#connection?.sendText({ type: 'ack', offset: this.#taken });
    }
  }

  async #connect(offset: number | undefined): Promise<void> {
    const query = new URLSearchParams({ ack: 'true', read_only: String(this.#options.readOnly ?? false) });
    if (offset !== undefined) query.set('offset', String(offset));
    const target = this.#http.webSocket(`${this.#path}?${query}`);
    const connection = new PtyConnection(target, (frame) => this.#take(frame));
    await connection.attached;
    if (this.#isOver) return connection.close();
    this.#connection = connection;
    for (const bytes of this.#typed.splice(0)) connection.send(bytes).catch(() => {});
    connection.lost.then((reason) => {
      if (this.#connection !== connection || this.#isOver) return;
      this.#connection = undefined;
      // Coming back would hide that what was typed was dropped.
      if (reason === 'pty_input_full') return this.#fail(inputFull());
      this.#options.onNotice?.({ type: 'disconnected' });
      this.#reattach().catch((error: Error) => this.#fail(error));
    });
  }

  /** @throws InstaVMError when the server says that there is nothing to attach to, or says nothing for too long */
  async #reattach(): Promise<void> {
    const until = performance.now() + REATTACH_WITHIN_MS;
    for (let pause = FIRST_RETRY_MS; !this.#isOver; pause = Math.min(pause * 2, LONGEST_RETRY_MS)) {
      try {
        await this.#connect(this.#offset);
        this.#options.onNotice?.({ type: 'reattached' });
        return;
      } catch (error) {
        if (isFinal(error) || performance.now() + pause > until) throw error;
      }
      await sleep(pause, undefined, { signal: this.#leaving.signal }).catch(() => {});
    }
  }

  #take(frame: PtyFrame): void {
    if (frame instanceof Uint8Array) {
      this.#offset += frame.length;
      this.#queue.push(frame);
      return;
    }
    if (frame.type === 'exit') {
      this.#isOver = true;
      this.#queue.end();
      this.#exit.resolve({ exitCode: frame.exitCode, signal: frame.signal });
      return;
    }
    if (frame.type === 'attached' || frame.type === 'skipped') {
      // What lies between is not there for this viewer.
      this.#taken += frame.offset - this.#offset;
      this.#offset = frame.offset;
    }
    if (frame.type === 'attached') this.#acknowledged = this.#taken;
    else this.#options.onNotice?.(frame);
  }

  #fail(error: Error): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#leaving.abort();
    this.#connection?.close();
    this.#queue.fail(error);
    this.#exit.reject(error);
  }
}

const inputFull = (): InstaVMError =>
  new InstaVMError('pty_input_full', 'more was typed than the program reads, and what did not fit was dropped', {
    hint: 'Attach again at the same offset.',
  });

/** Whether trying again would be answered the same. */
const isFinal = (error: unknown): boolean =>
  error instanceof InstaVMError && error.status !== undefined && error.status < 500 && error.status !== 429;

type WirePty = {
  id: string;
  alive: boolean;
  pid: number;
  exit_code: number | null;
  signal: string | null;
  cols: number;
  rows: number;
  argv: string[];
  user: string;
  start_offset: number;
  end_offset: number;
  viewers: number;
  linger_seconds: number;
  created_at: string;
};

function ptyInfo(wire: WirePty): PtyInfo {
  const { id, alive, pid, signal, cols, rows, argv, user, viewers } = wire;
  return {
    ...{ id, alive, pid, exitCode: wire.exit_code, signal, cols, rows, argv, user },
    ...{ startOffset: wire.start_offset, endOffset: wire.end_offset, viewers },
    ...{ lingerSeconds: wire.linger_seconds, createdAt: new Date(wire.created_at) },
  };
}

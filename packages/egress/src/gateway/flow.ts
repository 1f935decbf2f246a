/**
 * One open connection: carries bytes between a stream of the guest and a socket, each side read only as fast as the other takes it, half-closes
 * and resets included. What the guest sends may have to pass a check first.
 */
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import type { AgreementCheck } from '../inspect/agreement.ts';
import type { Bandwidth } from './bandwidth.ts';

/** A connection on which nothing moves for so long is forgotten by most networks, too. */
const IDLE_MS = 3_600_000;

export type FlowEnd = {
  /** `denied`: the bytes disagreed with the name. `cut`: by us. `failed`: reset by either side. */
  readonly outcome: 'closed' | 'denied' | 'cut' | 'failed';
  readonly reason: string | null;
  readonly bytesSent: number;
  readonly bytesReceived: number;
};

export type FlowOptions = {
  readonly stream: ServerHttp2Stream;
  /** Connected, nothing read or written yet. */
  readonly socket: Socket;
  readonly check: AgreementCheck | undefined;
  readonly bandwidth: Bandwidth;
  readonly idleMs?: number;
};

/** What can be paused while the other side is full, or too much has passed already. */
interface Source {
  pause(): unknown;
  resume(): unknown;
}

export class Flow {
  readonly ended: Promise<FlowEnd>;
  readonly #stream: ServerHttp2Stream;
  readonly #socket: Socket;
  readonly #check: AgreementCheck | undefined;
  readonly #bandwidth: Bandwidth;
  readonly #end: (end: FlowEnd) => void;
  readonly #timers = new Set<NodeJS.Timeout>();
  #isOver = false;
  #halves = 2;

  constructor({ stream, socket, check, bandwidth, idleMs = IDLE_MS }: FlowOptions) {
    this.#stream = stream;
    this.#socket = socket;
    this.#check = check;
    this.#bandwidth = bandwidth;
    const { promise, resolve } = Promise.withResolvers<FlowEnd>();
    this.ended = promise;
    this.#end = resolve;
    stream.on('data', (chunk: Buffer) => this.#fromGuest(chunk));
    stream.on('end', () => this.#guestEnded());
    stream.on('aborted', () => this.#break('failed', 'reset by the sandbox'));
    stream.on('error', (error) => this.#break('failed', error.message));
    stream.on('close', () => this.#break('failed', 'reset by the sandbox'));
    stream.on('drain', () => socket.resume());
    socket.on('data', (chunk: Buffer) => this.#fromServer(chunk));
    socket.on('end', () => this.#serverEnded());
    socket.on('error', (error: NodeJS.ErrnoException) =>
      this.#break('failed', `reset by the destination (${error.code})`),
    );
    socket.on('close', () => this.#break('failed', 'closed by the destination'));
    socket.on('drain', () => stream.resume());
    socket.setTimeout(idleMs, () => this.#break('cut', `nothing was sent or received for ${idleMs / 1000} s`));
  }

  /** Both ends see a reset. */
  cut(reason: string): void {
    this.#break('cut', reason);
  }

  #fromGuest(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#check === undefined) this.#send(chunk);
    else this.#sendAgreed(this.#check.push(chunk));
    this.#slow(this.#stream, chunk.length);
  }

  #sendAgreed(agreement: ReturnType<AgreementCheck['push']>): boolean {
    if ('mismatch' in agreement) {
      this.#break('denied', agreement.mismatch);
      return false;
    }
    for (const bytes of agreement.forward) this.#send(bytes);
    return true;
  }

  #send(bytes: Buffer): void {
    if (!this.#socket.write(bytes)) this.#stream.pause();
  }

  #fromServer(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#check !== undefined && !this.#sendAgreed(this.#check.answered(chunk))) return;
    if (!this.#stream.write(chunk)) this.#socket.pause();
    this.#slow(this.#socket, chunk.length);
  }

  #guestEnded(): void {
    if (this.#isOver) return;
    if (this.#check !== undefined && !this.#sendAgreed(this.#check.end())) return;
    this.#socket.end(() => this.#halfEnded());
  }

  #serverEnded(): void {
    if (this.#isOver) return;
    this.#stream.end(() => this.#halfEnded());
  }

  #halfEnded(): void {
    this.#halves--;
    if (this.#halves === 0) this.#finish({ outcome: 'closed', reason: null });
  }

  /** One that has to wait is resumed by its timer, or earlier by a drain: the debt stays, and the next bytes wait longer. */
  #slow(source: Source, bytes: number): void {
    const ms = this.#bandwidth.take(bytes);
    if (ms < 1) return;
    source.pause();
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      source.resume();
    }, ms);
    this.#timers.add(timer);
  }

  #break(outcome: 'denied' | 'cut' | 'failed', reason: string): void {
    if (this.#isOver) return;
    this.#finish({ outcome, reason });
    this.#stream.close(constants.NGHTTP2_CANCEL);
    // What the guest has left is not delivered, so the destination must not take it for an ordinary end.
    this.#socket.resetAndDestroy();
  }

  #finish({ outcome, reason }: Pick<FlowEnd, 'outcome' | 'reason'>): void {
    this.#isOver = true;
    for (const timer of this.#timers) clearTimeout(timer);
    const { bytesWritten, bytesRead } = this.#socket;
    this.#socket.setTimeout(0);
    this.#end({ outcome, reason, bytesSent: bytesWritten, bytesReceived: bytesRead });
  }
}

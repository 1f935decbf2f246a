/**
 * One open connection: carries bytes between a stream of the guest and a socket, each side read only as fast as the other takes it, half-closes
 * and resets included. What the guest sends may have to pass a check first.
 */
import { constants, type ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { reset } from '@instavm/agent-client';
import type { AgreementCheck } from '../inspect/agreement.ts';
import type { Bandwidth } from './bandwidth.ts';
import type { Intake } from './intake.ts';
import { Lane } from './lane.ts';

/** A connection on which nothing moves for so long is forgotten by most networks, too. */
const IDLE_MS = 3_600_000;

export type FlowEnd = {
  /** `denied`: the bytes disagreed with the name. `cut`: by us. `failed`: reset by either side. */
  readonly outcome: 'closed' | 'denied' | 'cut' | 'failed';
  readonly reason: string | null;
  /** What the destination's side of the host has taken; not the rest that a reset threw away. */
  readonly bytesSent: number;
  readonly bytesReceived: number;
};

export type FlowOptions = {
  readonly stream: ServerHttp2Stream;
  /** Of `stream`, since it began. */
  readonly intake: Intake;
  /** Connected, nothing read or written yet. */
  readonly socket: Socket;
  readonly check: AgreementCheck | undefined;
  readonly bandwidth: Bandwidth;
  /** Told of bytes that have left. */
  readonly sent?: (bytes: number) => void;
  /** Told of bytes that have come. */
  readonly received?: (bytes: number) => void;
  readonly idleMs?: number;
};

export class Flow {
  readonly ended: Promise<FlowEnd>;
  readonly #stream: ServerHttp2Stream;
  readonly #socket: Socket;
  readonly #check: AgreementCheck | undefined;
  readonly #bandwidth: Bandwidth;
  readonly #end: (end: FlowEnd) => void;
  readonly #outward: Lane;
  readonly #inward: Lane;
  readonly #told: (bytes: number) => void;
  #received = 0;
  #isOver = false;
  /** Whether everything that each of them sent before its end has been handed on. */
  #isGuestDone = false;
  #isServerDone = false;

  constructor({ stream, intake, socket, check, bandwidth, sent, received = () => {}, idleMs = IDLE_MS }: FlowOptions) {
    this.#stream = stream;
    this.#socket = socket;
    this.#check = check;
    this.#bandwidth = bandwidth;
    this.#outward = new Lane(stream, socket, sent);
    this.#told = received;
    this.#inward = new Lane(socket, stream);
    const { promise, resolve } = Promise.withResolvers<FlowEnd>();
    this.ended = promise;
    this.#end = resolve;
    stream.on('data', (chunk: Buffer) => {
      this.#fromGuest(chunk);
      intake.taken();
    });
    stream.on('end', () => this.#guestEnded());
    stream.on('finish', () => this.#serverDone());
    stream.on('aborted', () => this.#break('failed', 'reset by the sandbox'));
    stream.on('error', (error) => this.#break('failed', error.message));
    stream.on('close', () => this.#guestClosed());
    socket.on('data', (chunk: Buffer) => this.#fromServer(chunk));
    socket.on('end', () => this.#serverEnded());
    socket.on('finish', () => this.#guestDone());
    socket.on('error', (error: NodeJS.ErrnoException) =>
      this.#break('failed', `reset by the destination (${error.code})`),
    );
    socket.on('close', () => this.#serverClosed());
    const idle = (): void => this.#break('cut', `nothing was sent or received for ${idleMs / 1000} s`);
    // Both, because either may be over while the other still has something to deliver.
    stream.setTimeout(idleMs, idle);
    socket.setTimeout(idleMs, idle);
    // Their events may be past: the end of a guest that has said nothing needs no reader.
    if (stream.readableEnded) this.#guestEnded();
    if (stream.destroyed) this.#guestClosed();
    if (socket.destroyed) this.#serverClosed();
  }

  /** Both ends see a reset. */
  cut(reason: string): void {
    this.#break('cut', reason);
  }

  #fromGuest(chunk: Buffer): void {
    if (this.#isOver) return;
    if (this.#check === undefined) this.#outward.write(chunk);
    else this.#sendAgreed(this.#check.push(chunk));
    this.#pace(this.#outward, chunk.length);
  }

  #sendAgreed(agreement: ReturnType<AgreementCheck['push']>): boolean {
    if ('mismatch' in agreement) {
      this.#break('denied', agreement.mismatch);
      return false;
    }
    for (const bytes of agreement.forward) this.#outward.write(bytes);
    return true;
  }

  #fromServer(chunk: Buffer): void {
    if (this.#isOver) return;
    this.#received += chunk.length;
    this.#told(chunk.length);
    if (this.#check !== undefined && !this.#sendAgreed(this.#check.answered(chunk))) return;
    this.#inward.write(chunk);
    this.#pace(this.#inward, chunk.length);
  }

  #guestEnded(): void {
    if (this.#isOver) return;
    // Node ends what can be read for a reset, too, when the server has ended before.
    if (this.#stream.rstCode !== constants.NGHTTP2_NO_ERROR) this.#break('failed', 'reset by the sandbox');
    else if (this.#check !== undefined && !this.#sendAgreed(this.#check.end())) return;
    else this.#socket.end();
  }

  #serverEnded(): void {
    if (!this.#isOver) this.#stream.end();
  }

  #guestDone(): void {
    this.#isGuestDone = true;
    if (this.#isServerDone) this.#finish({ outcome: 'closed', reason: null });
  }

  #serverDone(): void {
    this.#isServerDone = true;
    if (this.#isGuestDone) this.#finish({ outcome: 'closed', reason: null });
  }

  /** After an orderly end of both directions the destination may still be taking the last bytes; Node skips `finish` then. */
  #guestClosed(): void {
    const { readableEnded, writableEnded, rstCode } = this.#stream;
    if (readableEnded && writableEnded && rstCode === constants.NGHTTP2_NO_ERROR) this.#serverDone();
    else this.#break('failed', 'reset by the sandbox');
  }

  /** After an orderly end of both directions the guest may still be taking the last bytes. */
  #serverClosed(): void {
    if (this.#socket.readableEnded && this.#socket.writableFinished) return;
    this.#break('failed', 'closed by the destination');
  }

  /** The debt that other connections share grows with what this one takes, so it waits longer the next time. */
  #pace(lane: Lane, bytes: number): void {
    const ms = this.#bandwidth.take(bytes);
    if (ms >= 1 && !this.#isOver) lane.pause(ms);
  }

  #break(outcome: 'denied' | 'cut' | 'failed', reason: string): void {
    if (this.#isOver) return;
    this.#finish({ outcome, reason });
    reset(this.#stream);
    // What the guest has left is not delivered, so the destination must not take it for an ordinary end.
    this.#socket.resetAndDestroy();
  }

  #finish({ outcome, reason }: Pick<FlowEnd, 'outcome' | 'reason'>): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#outward.close();
    this.#inward.close();
    this.#stream.setTimeout(0);
    this.#socket.setTimeout(0);
    this.#end({ outcome, reason, bytesSent: this.#outward.delivered, bytesReceived: this.#received });
  }
}

/**
 * One viewer of a terminal over one WebSocket (contract §9, docs/reference/pty.md). The relay keeps no state of the PTY: it knows how far
 * its client has read, and goes on from there when the channel to the guest was lost and found again.
 */
import type { PtyEvent } from '@instavm/agent-client';
import type { SandboxOwner, Wake } from '@instavm/core';
import { type AttachPtyQuery, InstaVMError, PtyControl } from '@instavm/wire';
import type { FastifyBaseLogger } from 'fastify';
import type { RawData, WebSocket } from 'ws';
import type { z } from 'zod';
import { guestError } from '../guest/errors.ts';
import type { Guest } from '../guest/guest.ts';
import { signalName } from '../guest/signals.ts';
import { ptyView } from '../routes/ptys.ts';
import { keepOpen, parseFrame, sendFrame } from './frames.ts';
import { MessageQueue } from './message-queue.ts';

/** How long the guest may take to say that a viewer is attached. */
const OPEN_DEADLINE_MS = 15_000;
/** A channel that is lost again and again before anything came through it belongs to a broken guest. */
const MAX_FRUITLESS_ATTEMPTS = 5;
/** Of one message of the guest (spec/agent.proto, PtyOutput), and so of one frame. */
const MAX_OUTPUT_BYTES = 64 * 1024;
/** Output that the client's kernel has taken is acknowledged in steps: each is a message on the channel. */
const ACK_STEP_BYTES = 64n * 1024n;
/** Input waiting for the channel, beyond which the socket is not read. The guest itself never stops reading. */
const INPUT_HIGH_WATER_BYTES = 1024 * 1024;

const CLOSE_NORMAL = 1000;
const CLOSE_LOST = 1011;
const CLOSE_FAILED = 4500;
const CLOSE_UNREACHABLE = 4502;
const CLOSE_TIMED_OUT = 4504;

export type PtyViewer = {
  readonly owner: SandboxOwner<Guest>;
  readonly ptyId: string;
  readonly query: Pick<AttachPtyQuery, 'offset' | 'read_only' | 'ack'>;
};

type Input =
  | { case: 'open'; value: { id: string; offset: bigint; fromStart: boolean; readOnly: boolean; hold: boolean } }
  | { case: 'input'; value: Uint8Array<ArrayBuffer> }
  | { case: 'resize'; value: { cols: number; rows: number } }
  | { case: 'ack'; value: bigint };

type Opened = Extract<PtyEvent['event'], { case: 'opened' }>['value'];

/** Attached to the guest before the client is answered, so that a terminal that is not there is an ordinary HTTP refusal. */
export class PtyRelay {
  readonly #viewer: PtyViewer;
  readonly #log: FastifyBaseLogger;
  #socket: WebSocket | undefined;
  #input: MessageQueue<Input>;
  #events: AsyncIterator<PtyEvent> | undefined;
  #stop = new AbortController();
  /** The client is gone. */
  readonly #left = new AbortController();
  /** Resolves when something is typed after the channel was lost, known or not yet known to be suspended. */
  #typing = Promise.withResolvers<Wake>();
  #opened: Opened | undefined;
  /** Of the next byte for the client. */
  #offset = 0n;
  #acknowledged = 0n;
  #hasSentOutput = false;

  private constructor(viewer: PtyViewer, log: FastifyBaseLogger) {
    this.#viewer = viewer;
    this.#log = log;
    this.#input = this.#newInput();
  }

  /** @throws pty_not_found, too_many_viewers, guest_unresponsive, guest_lost, and as `SandboxOwner.guest` */
  static async attach(viewer: PtyViewer, log: FastifyBaseLogger): Promise<PtyRelay> {
    const relay = new PtyRelay(viewer, log);
    relay.#opened = await relay.#attach(
      viewer.query.offset === undefined ? undefined : BigInt(viewer.query.offset),
      'suspended',
    );
    relay.#offset = relay.#opened.offset;
    relay.#acknowledged = relay.#offset;
    return relay;
  }

  /** Ends the viewer, not the terminal. Idempotent. */
  detach(): void {
    this.#input.discard();
    this.#stop.abort();
  }

  /** Relays until the program ends, the client leaves or the sandbox is lost. */
  async serve(socket: WebSocket): Promise<void> {
    this.#socket = socket;
    keepOpen(socket);
    socket.on('error', (error) => this.#log.debug({ err: error }, 'terminal socket'));
    socket.once('close', () => {
      this.#left.abort();
      this.detach();
    });
    socket.on('message', (data, isBinary) => this.#take(data, isBinary));
    const info = this.#opened?.info;
    await this.#send({ type: 'attached', offset: Number(this.#offset), ...(info && { pty: ptyView(info) }) });
    for (let attempts = 0; ; ) {
      const before = this.#offset;
      try {
        await this.#relayEvents();
        return socket.close(CLOSE_NORMAL);
      } catch (error) {
        if (socket.readyState !== socket.OPEN) return;
        const failure = guestError(error);
        attempts = this.#offset > before ? 1 : attempts + 1;
        if (failure.code !== 'guest_lost' || attempts > MAX_FRUITLESS_ATTEMPTS) return this.#fail(failure);
      }
      this.#log.info({ pty: this.#viewer.ptyId }, 'the channel under a terminal was lost; attaching again');
      try {
        await this.#attachAgain();
      } catch (error) {
        return this.#fail(guestError(error));
      }
    }
  }

  async #attach(from: bigint | undefined, wake: Wake): Promise<Opened> {
    const { owner, ptyId, query } = this.#viewer;
    const { agent } = await owner.guest(wake);
    const stop = new AbortController();
    this.#stop = stop;
    const open = { id: ptyId, offset: from ?? 0n, fromStart: from === undefined, readOnly: query.read_only };
    const requests = messages({ case: 'open', value: { ...open, hold: !query.read_only } }, this.#input);
    let late = false;
    const timer = setTimeout(() => {
      late = true;
      stop.abort();
    }, OPEN_DEADLINE_MS);
    try {
      this.#events = agent.pty.attach(requests, { signal: stop.signal })[Symbol.asyncIterator]();
      const first = await this.#events.next();
      if (first.done || first.value.event.case !== 'opened')
        throw new InstaVMError('guest_protocol', 'the guest did not begin with the state of the terminal');
      return first.value.event.value;
    } catch (error) {
      this.detach();
      throw late ? new InstaVMError('guest_unresponsive', 'the sandbox did not open the terminal in time') : error;
    } finally {
      clearTimeout(timer);
    }
  }

  /** What was typed and not yet handed to the lost channel goes to the new one. */
  async #attachAgain(): Promise<void> {
    const lost = this.#input;
    this.#input = this.#newInput();
    lost.moveTo(this.#input);
    this.#typing = Promise.withResolvers();
    this.#stop.abort();
    for (let wake: Wake = 'never'; !this.#left.signal.aborted; wake = await this.#whileSuspended()) {
      try {
        await this.#attach(this.#offset, wake);
        return;
      } catch (error) {
        if (!(error instanceof InstaVMError) || error.code !== 'sandbox_suspended') throw error;
      }
    }
  }

  /** Whoever suspended the sandbox under its viewers meant it: they stay, and only what one of them types wakes it. */
  async #whileSuspended(): Promise<Wake> {
    const over = new AbortController();
    const signal = AbortSignal.any([over.signal, this.#left.signal]);
    const awake = this.#viewer.owner.nextState(signal).then((): Wake => 'never');
    try {
      return await Promise.race([this.#typing.promise, awake]);
    } finally {
      over.abort();
    }
  }

  #newInput(): MessageQueue<Input> {
    return new MessageQueue(INPUT_HIGH_WATER_BYTES, {
      full: () => this.#socket?.pause(),
      drained: () => this.#socket?.resume(),
    });
  }

  /** Returns when the program has ended and the client was told. @throws guest errors */
  async #relayEvents(): Promise<void> {
    for (let next = await this.#events?.next(); next && !next.done; next = await this.#events?.next()) {
      const { event } = next.value;
      switch (event.case) {
        case 'output':
          await this.#sendOutput(event.value.offset, event.value.data);
          break;
        case 'resized':
          await this.#send({ type: 'resized', cols: event.value.cols, rows: event.value.rows });
          break;
        case 'exit':
          this.detach();
          return this.#send({ type: 'exit', exit_code: event.value.code, signal: signalName(event.value.signal) });
        default:
          throw new InstaVMError('guest_protocol', 'the guest sent a terminal event of no known kind');
      }
    }
    throw new InstaVMError('guest_protocol', 'the guest ended the terminal without an exit status');
  }

  async #sendOutput(offset: bigint, data: Uint8Array): Promise<void> {
    if (offset < this.#offset || offset > Number.MAX_SAFE_INTEGER || data.length > MAX_OUTPUT_BYTES)
      throw new InstaVMError('guest_protocol', 'the guest sent output of a terminal that cannot be');
    if (offset > this.#offset) await this.#send({ type: 'skipped', offset: Number(offset) });
    const end = offset + BigInt(data.length);
    this.#offset = end;
    this.#hasSentOutput = true;
    const { ack, read_only } = this.#viewer.query;
    if (this.#socket) await sendFrame(this.#socket, data, ack || read_only ? undefined : () => this.#acknowledge(end));
  }

  /** The client's kernel has taken the output up to here. */
  #acknowledge(offset: bigint): void {
    if (offset - this.#acknowledged < ACK_STEP_BYTES) return;
    this.#acknowledged = offset;
    this.#input.push({ case: 'ack', value: offset }, 0);
  }

  #take(data: RawData, isBinary: boolean): void {
    const { read_only } = this.#viewer.query;
    if (isBinary) {
      const bytes = data as Buffer;
      if (!read_only && bytes.length > 0)
        this.#input.push({ case: 'input', value: bytes as Uint8Array<ArrayBuffer> }, bytes.length);
      if (!read_only) this.#typing.resolve('suspended');
      return;
    }
    const control = controlOf(data);
    if (control?.type === 'ack') this.#input.push({ case: 'ack', value: BigInt(control.offset) }, 0);
    else if (control?.type === 'resize' && !read_only)
      this.#input.push({ case: 'resize', value: { cols: control.cols, rows: control.rows } }, 0);
  }

  async #send(frame: object): Promise<void> {
    if (this.#socket) await sendFrame(this.#socket, JSON.stringify(frame));
  }

  #fail(failure: InstaVMError): void {
    if (failure.status >= 500) this.#log.warn({ err: failure, pty: this.#viewer.ptyId }, 'terminal relay');
    this.detach();
    this.#socket?.close(this.#hasSentOutput ? CLOSE_LOST : closeCode(failure), failure.code);
  }
}

async function* messages(open: Input, input: MessageQueue<Input>) {
  yield { message: open };
  for await (const message of input) yield { message };
}

/** The contract wants unknown and malformed text ignored. */
function controlOf(data: RawData): z.infer<typeof PtyControl> | undefined {
  try {
    return parseFrame(PtyControl, data);
  } catch (error) {
    if (error instanceof InstaVMError) return undefined;
    throw error;
  }
}

/** Before any output (contract §9). */
export function closeCode({ code }: InstaVMError): number {
  if (code === 'guest_unresponsive') return CLOSE_TIMED_OUT;
  if (code === 'guest_lost' || code === 'guest_protocol') return CLOSE_UNREACHABLE;
  return CLOSE_FAILED;
}

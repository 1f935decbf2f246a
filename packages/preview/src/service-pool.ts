/**
 * Connections to the service behind one share, opened by the daemon and kept for a moment, so that the many small requests of one page do not each
 * pay for a way into the sandbox. Never shared between shares.
 */
import { Agent, type ClientRequest } from 'node:http';
import type { Duplex } from 'node:stream';
import type { LifecycleLog } from '@instavm/core';
import { InstaVMError } from '@instavm/wire';
import type { PreviewTarget } from './targets.ts';

/** Shorter than what common servers keep idle connections for (Node: 5 s), so that we are usually first to close. */
const KEEP_IDLE_MS = 4_000;
const KEEP_AT_MOST = 16;

export class ServicePool extends Agent {
  readonly #idle = new WeakMap<Duplex, NodeJS.Timeout>();
  readonly #connectTimeoutMs: number;
  #isClosed = false;
  readonly #log: LifecycleLog;
  /** As `find` last returned it. */
  target: PreviewTarget;

  constructor(target: PreviewTarget, connectTimeoutMs: number, log: LifecycleLog) {
    super({ keepAlive: true, maxFreeSockets: KEEP_AT_MOST, scheduling: 'lifo' });
    this.target = target;
    this.#connectTimeoutMs = connectTimeoutMs;
    this.#log = log;
  }

  /** @throws as {@link PreviewTarget.connect}; guest_unresponsive when it takes too long */
  async connect(): Promise<Duplex> {
    // Not AbortSignal.timeout, which would fire later and end a connection that was made in time.
    const controller = new AbortController();
    const { signal } = controller;
    const timer = setTimeout(() => controller.abort(), this.#connectTimeoutMs);
    try {
      return withSocketKnobs(await this.target.connect(signal));
    } catch (error) {
      if (signal.aborted)
        throw new InstaVMError('guest_unresponsive', 'The sandbox does not answer yet.', { cause: error });
      if (error instanceof InstaVMError) throw error;
      this.#log.warn({ err: error, shareId: this.target.shareId }, 'a preview could not be connected');
      throw new InstaVMError('internal', 'This is a fault of the server.', { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  override destroy(): void {
    this.#isClosed = true;
    super.destroy();
  }

  override createConnection(_options: object, callback?: (error: Error | null, stream: Duplex) => void): undefined {
    this.connect().then(
      (stream) => callback?.(null, stream),
      (error: Error) => callback?.(error, undefined as unknown as Duplex),
    );
  }

  // Node calls these two with whatever createConnection gave; its types say Duplex and its code expects a net.Socket.
  override keepSocketAlive(stream: Duplex): boolean {
    if (this.#isClosed) return false;
    const timer = setTimeout(() => stream.destroy(), KEEP_IDLE_MS);
    timer.unref();
    this.#idle.set(stream, timer);
    return true;
  }

  override reuseSocket(stream: Duplex, request: ClientRequest): void {
    clearTimeout(this.#idle.get(stream));
    super.reuseSocket(stream, request);
  }
}

const KNOBS = ['ref', 'unref', 'setKeepAlive', 'setNoDelay', 'setTimeout'] as const;

function unchanged(this: Duplex): Duplex {
  return this;
}

/** A tunnel has no descriptor to tune; Node's HTTP client turns these knobs on every connection all the same. */
function withSocketKnobs(stream: Duplex): Duplex {
  for (const knob of KNOBS) {
    if (!(knob in stream)) Object.assign(stream, { [knob]: unchanged });
  }
  return stream;
}

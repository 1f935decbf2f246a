/**
 * The SYNC/ACKN exchange of spec/agent.proto from the host's side: finds where this connection begins in a stream that may
 * still carry bytes of an earlier one.
 */
import { randomBytes } from 'node:crypto';
import type { Duplex } from 'node:stream';
import { AgentError } from './errors.ts';

export const SYNC = Buffer.from('INSTAVM-SYNC-01\n', 'latin1');
export const ACKN = Buffer.from('INSTAVM-ACKN-01\n', 'latin1');
export const NONCE_BYTES = 16;

/** Finds `ACKN + nonce` in bytes that arrive in pieces of any size, keeping no more than a frame of them. */
export class AcknScanner {
  readonly #frame: Buffer;
  #kept: Buffer = Buffer.alloc(0);

  constructor(nonce: Buffer) {
    this.#frame = Buffer.concat([ACKN, nonce]);
  }

  /** @returns what follows the frame in `piece`, or undefined while it has not been seen */
  push(piece: Buffer): Buffer | undefined {
    const bytes = Buffer.concat([this.#kept, piece]);
    const at = bytes.indexOf(this.#frame);
    if (at >= 0) return bytes.subarray(at + this.#frame.length);
    this.#kept = Buffer.from(bytes.subarray(Math.max(0, bytes.length - this.#frame.length + 1)));
    return undefined;
  }
}

/**
 * Sends SYNC and waits for its ACKN; HTTP/2 may start afterwards.
 * @throws AgentError `deadline` without an answer in time, `channel_lost` when the stream ends first
 */
export function synchronize(stream: Duplex, deadlineMs: number): Promise<void> {
  const nonce = randomBytes(NONCE_BYTES);
  const scanner = new AcknScanner(nonce);
  return new Promise((resolve, reject) => {
    const finish = (error?: AgentError): void => {
      clearTimeout(timer);
      stream.off('readable', onReadable).off('end', onEnd).off('close', onEnd).off('error', onError);
      if (error === undefined) resolve();
      else reject(error);
    };
    const onEnd = (): void => finish(new AgentError('channel_lost', 'the guest closed the channel before answering'));
    const onError = (cause: Error): void => finish(new AgentError('channel_lost', cause.message, { cause }));
    const onReadable = (): void => {
      for (let piece = stream.read() as Buffer | null; piece !== null; piece = stream.read() as Buffer | null) {
        const rest = scanner.push(piece);
        if (rest === undefined) continue;
        if (rest.length > 0) stream.unshift(rest);
        finish();
        return;
      }
    };
    const timer = setTimeout(
      () => finish(new AgentError('deadline', `the guest agent did not answer within ${deadlineMs} ms`)),
      deadlineMs,
    );
    stream.on('readable', onReadable).on('end', onEnd).on('close', onEnd).on('error', onError);
    stream.write(Buffer.concat([SYNC, nonce]));
  });
}

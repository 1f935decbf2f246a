/** What the relays do to every frame: parse what came, send with back-pressure, keep the connection open. */
import { InstaVMError } from '@instavm/wire';
import type { RawData, WebSocket } from 'ws';
import { invalidFields } from '../errors.ts';

/** Keeps idle connections open through proxies. A peer that is gone is noticed by TCP, not by its silence: one that reads slowly is silent too. */
const PING_INTERVAL_MS = 20_000;
/** What may wait for the client before the source is no longer read. */
const HIGH_WATER_BYTES = 1024 * 1024;

type Schema<T> = {
  safeParse(
    value: unknown,
  ):
    | { success: true; data: T }
    | { success: false; error: { issues: readonly { path: PropertyKey[]; message: string }[] } };
};

/** @param data undefined for a binary frame where text is due. @throws invalid_argument that names the fields, malformed_request */
export function parseFrame<T>(schema: Schema<T>, data: RawData | undefined): T {
  let value: unknown;
  try {
    value = data === undefined ? undefined : JSON.parse(data.toString());
  } catch {
    throw new InstaVMError('malformed_request', 'a text frame is not JSON');
  }
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  throw invalidFields(result.error.issues.map(({ path, message }) => ({ path: path.join('.') || 'frame', message })));
}

/**
 * Waits only while much is on its way, so that the next piece is read while this one is sent.
 * @param onTaken called when the kernel has taken the frame and all before it
 */
export function sendFrame(
  socket: WebSocket,
  frame: string | Uint8Array,
  onTaken?: () => void,
): Promise<void> | undefined {
  const options = { binary: typeof frame !== 'string' };
  if (socket.bufferedAmount < HIGH_WATER_BYTES) {
    // A socket that failed says so by closing.
    socket.send(frame, options, (error) => error ?? onTaken?.());
    return undefined;
  }
  return new Promise((resolve, reject) => {
    socket.send(frame, options, (error) => {
      if (error) return reject(error);
      onTaken?.();
      resolve();
    });
  });
}

/** Pings until the socket closes. */
export function keepOpen(socket: WebSocket): void {
  const pinging = setInterval(() => socket.ping(), PING_INTERVAL_MS);
  socket.once('close', () => clearInterval(pinging));
}

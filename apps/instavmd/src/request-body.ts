/** The body of a request as pieces that may be given up half-way. */
import { Readable } from 'node:stream';

/**
 * What nobody reads to its end is read and dropped: destroying it would close the connection under the answer that says why, and
 * leaving it would block a client that sends everything before it listens. No body is an empty one.
 */
export async function* bodyPieces(body: unknown): AsyncGenerator<Uint8Array> {
  if (!(body instanceof Readable)) return;
  try {
    yield* body.iterator({ destroyOnReturn: false });
  } finally {
    body.resume();
  }
}

/**
 * What Node's HTTP/2 streams do otherwise than they should, set right in one place. A stream that is given up half-way has to be reset before it has
 * ended: with END_STREAM, or with the code NO_ERROR (RFC 9113 §8.1), what was cut short would look whole. Node sends END_STREAM before the reset of
 * `close()`, takes `destroy()` without an error for an end, and resets as it should only when a stream is destroyed with an error.
 */
import { type ClientHttp2Stream, constants, type Http2Stream } from 'node:http2';
import { addAbortSignal } from 'node:stream';

/** RST_STREAM and nothing before it: with the code CANCEL, or INTERNAL_ERROR with an error, which listeners then get. */
export function reset(stream: Http2Stream, error?: Error): void {
  if (stream.destroyed) return;
  // The only way to the error that Node sends CANCEL for.
  if (error === undefined) addAbortSignal(AbortSignal.abort(), stream);
  else stream.destroy(error);
}

/**
 * `close()` with a code of error resets a request that is not at its end with INTERNAL_ERROR: gRPC servers take CANCEL for an end.
 * @param error what listeners get then
 */
export function withResettingClose(stream: ClientHttp2Stream, error: () => Error): ClientHttp2Stream {
  const close = stream.close.bind(stream);
  stream.close = (code, callback) => {
    if (code === undefined || code === constants.NGHTTP2_NO_ERROR || stream.writableEnded) return close(code, callback);
    if (callback !== undefined) stream.once('close', callback);
    reset(stream, error());
  };
  return stream;
}

/**
 * A request that is closed without an answer fails. Where the code is NO_ERROR, as when this side destroys the session, or the peer says so, Node tells of
 * no error, and who waits for the answer would wait for ever.
 */
export function withoutLostAnswers(stream: ClientHttp2Stream, error: () => Error): ClientHttp2Stream {
  let isAnswered = false;
  stream.once('response', () => {
    isAnswered = true;
  });
  const destroy = stream._destroy.bind(stream);
  stream._destroy = (cause, callback) => destroy(cause ?? (isAnswered ? null : error()), callback);
  return stream;
}

/**
 * For a stream that carries a connection: whichever side resets it, its reader is told of no end, and the peer of a reset. Errors need no listener.
 * @param reason why it ended; null when it was given up here, of which nobody here need be told
 */
export function withoutFalseEnds(stream: ClientHttp2Stream, reason: () => Error | null): ClientHttp2Stream {
  const destroy = stream._destroy.bind(stream);
  stream._destroy = (error, callback) => {
    if (stream.closed && stream.rstCode === constants.NGHTTP2_NO_ERROR) {
      destroy(error, callback);
      return;
    }
    stream.push = () => false;
    const seen = error ?? reason();
    destroy(seen ?? new Error('given up'), () => callback(seen));
  };
  stream.on('error', () => {});
  return stream;
}

/**
 * Node frees what a batch of writes holds when it comes to an empty one at the end, before the bytes ahead of it are sent: the peer would be sent whatever
 * that memory holds by then (seen in 20.20 and 24.21). Node's HTTP client ends each request with an empty write.
 */
export function withoutEmptyWrites(stream: ClientHttp2Stream): ClientHttp2Stream {
  const writev = stream._writev?.bind(stream);
  if (writev === undefined) return stream;
  stream._writev = (chunks, callback) => {
    const filled = chunks.filter(({ chunk }) => (chunk as string | Uint8Array).length > 0);
    if (filled.length === 0) callback();
    else writev(filled, callback);
  };
  return stream;
}

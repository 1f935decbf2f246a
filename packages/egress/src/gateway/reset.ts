import type { ServerHttp2Stream } from 'node:http2';
import { addAbortSignal } from 'node:stream';

/**
 * RST_STREAM with CANCEL, and nothing before it. `close(NGHTTP2_CANCEL)` would first send END_STREAM, and what was cut short would look whole;
 * `destroy()` of its own has no way to say CANCEL.
 */
export function reset(stream: ServerHttp2Stream): void {
  if (!stream.destroyed) addAbortSignal(AbortSignal.abort(), stream);
}

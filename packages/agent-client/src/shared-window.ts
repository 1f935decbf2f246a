/**
 * How much of a bulk transfer may be on its way from the guest. What somebody types comes behind all of it, so it is one amount that the streams
 * which are open share: a single one gets enough to be fast, and many together hold nobody up (RFC 9113 §6.9.2 changes the windows of open streams).
 */
import type { ClientHttp2Session, ClientHttp2Stream } from 'node:http2';

/** Of one stream alone, and about that of all together. */
export const WHOLE_WINDOW_BYTES = 1024 * 1024;
/** However many there are: below this a stream waits for the host after every piece. */
export const LEAST_WINDOW_BYTES = 256 * 1024;

export class SharedWindow {
  readonly #session: ClientHttp2Session;
  #streams = 0;
  #bytes = WHOLE_WINDOW_BYTES;
  /** The guest has not confirmed the last change; Node allows only few at once. */
  #isChanging = false;

  /** @param session with `WHOLE_WINDOW_BYTES` as its initial window */
  constructor(session: ClientHttp2Session) {
    this.#session = session;
  }

  /** For a stream that may carry as much as there is, until it closes. */
  share(stream: ClientHttp2Stream): void {
    this.#streams += 1;
    stream.once('close', () => {
      this.#streams -= 1;
      this.#adjust();
    });
    this.#adjust();
  }

  #adjust(): void {
    const wanted = Math.max(LEAST_WINDOW_BYTES, Math.floor(WHOLE_WINDOW_BYTES / Math.max(1, this.#streams)));
    if (wanted === this.#bytes || this.#isChanging || this.#session.closed || this.#session.destroyed) return;
    this.#bytes = wanted;
    this.#isChanging = true;
    this.#session.settings({ initialWindowSize: wanted }, () => {
      this.#isChanging = false;
      this.#adjust();
    });
  }
}

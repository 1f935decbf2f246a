/** One request to the service in the sandbox, streamed as it comes, and its answer back. */
import { type ClientRequest, request as httpRequest, type IncomingMessage } from 'node:http';
import { InstaVMError } from '@instavm/wire';
import { explained, MAX_ANSWER_HEADER_BYTES, relayAnswer, serviceTimeout } from './answer.ts';
import { breakOff, hasBody, type Incoming, isGone, isHttp2, type Outgoing, sendPage } from './exchange.ts';
import { type Field, fieldsOf, requestFields, trailerFields, type Visit, valuesOf } from './headers.ts';
import { errorPage } from './pages.ts';
import type { ServicePool } from './service-pool.ts';

export type ForwardTimeouts = {
  /** From the end of the request to the header of the answer. */
  readonly answerMs: number;
  /** Without a byte in either direction. */
  readonly idleMs: number;
};

export type Forwarding = {
  readonly request: Incoming;
  readonly response: Outgoing;
  /** Path and query as the service sees them. */
  readonly path: string;
  readonly visit: Visit;
  readonly pool: ServicePool;
  readonly timeouts: ForwardTimeouts;
};

const WITHOUT_BODY = ['GET', 'HEAD', 'OPTIONS', 'DELETE', 'TRACE'];
const REPEATABLE = ['GET', 'HEAD', 'OPTIONS'];

/** Until the answer is closed; failures are told to the visitor. */
export function forward(forwarding: Forwarding): void {
  new Exchange(forwarding).start();
}

class Exchange {
  readonly #of: Forwarding;
  readonly #hasBody: boolean;
  /** May be asked once more when a kept connection turns out to be closed: without a body and effects, nothing is lost by it. */
  readonly #isRepeatable: boolean;
  readonly #idle: NodeJS.Timeout;
  #upstream: ClientRequest | undefined;
  #answerTimer: NodeJS.Timeout | undefined;
  #repeated = false;
  #invited = false;
  #ended = false;

  constructor(of: Forwarding) {
    this.#of = of;
    this.#hasBody = hasBody(of.request);
    this.#isRepeatable = !this.#hasBody && REPEATABLE.includes(of.request.method ?? '');
    this.#idle = setTimeout(
      () => this.#fail(serviceTimeout('Nothing came from either side for too long.')),
      of.timeouts.idleMs,
    );
    of.response.once('close', () => this.#end());
    of.request.on('error', () => breakOff(of.response));
  }

  start(): void {
    const { request, response, path, pool } = this.#of;
    const upstream = httpRequest({
      ...(request.method === undefined ? {} : { method: request.method }),
      path,
      headers: this.#fields().flat(),
      // What cannot be repeated gets a connection of its own.
      ...(this.#isRepeatable
        ? { agent: pool }
        : { createConnection: (options, done) => pool.createConnection(options, done) }),
      maxHeaderSize: MAX_ANSWER_HEADER_BYTES,
      insecureHTTPParser: false,
    });
    this.#upstream = upstream;
    upstream.on('continue', () => {
      if (response.headersSent || (isHttp2(response) && response.stream.closed)) return;
      this.#invited = true;
      response.writeContinue();
    });
    upstream.once('response', (answer) => this.#answer(answer));
    upstream.once('upgrade', (_answer, stream) => {
      stream.destroy();
      this.#fail(
        new InstaVMError('service_failed', 'The service in the sandbox switched protocols without being asked.'),
      );
    });
    upstream.on('error', (error) => {
      if (this.#upstream !== upstream) return;
      const mayRepeat = this.#isRepeatable && !this.#repeated && !response.headersSent && !isGone(response);
      if (upstream.reusedSocket && mayRepeat) {
        this.#repeated = true;
        this.start();
      } else {
        this.#fail(error);
      }
    });
    if (this.#hasBody) {
      this.#sendBody(upstream);
    } else {
      upstream.end();
      this.#awaitAnswer();
    }
  }

  #fields(): Field[] {
    const { request, visit } = this.#of;
    const received = fieldsOf(request.rawHeaders);
    const length = request.headers['content-length'];
    const isChunked = this.#hasBody && length === undefined;
    // RFC 9110 §10.1.4: trailers of the answer come only to who can take them.
    const wantsTrailers = valuesOf(received, 'te').some((value) => /\btrailers\b/i.test(value));
    const options = [this.#isRepeatable ? 'keep-alive' : 'close', ...(wantsTrailers ? ['TE'] : [])];

    const fields = requestFields(received, visit).filter(([name]) => isChunked || name.toLowerCase() !== 'trailer');
    fields.push(['Connection', options.join(', ')]);
    if (wantsTrailers) fields.push(['TE', 'trailers']);
    if (length !== undefined) fields.push(['Content-Length', length]);
    else if (isChunked) fields.push(['Transfer-Encoding', 'chunked']);
    else if (!WITHOUT_BODY.includes(request.method ?? '')) fields.push(['Content-Length', '0']);
    return fields;
  }

  #sendBody(upstream: ClientRequest): void {
    const { request } = this.#of;
    upstream.flushHeaders();
    request.on('data', () => this.#idle.refresh());
    request.pipe(upstream, { end: false });
    request.once('end', () => {
      if (request.headers['content-length'] === undefined) upstream.addTrailers(trailerFields(request.rawTrailers));
      upstream.end();
      this.#awaitAnswer();
    });
  }

  #awaitAnswer(): void {
    if (this.#of.response.headersSent || this.#ended) return;
    const { answerMs } = this.#of.timeouts;
    const message = `The service in the sandbox did not answer within ${Math.ceil(answerMs / 1_000)} seconds.`;
    this.#answerTimer = setTimeout(() => this.#fail(serviceTimeout(message)), answerMs);
  }

  #answer(answer: IncomingMessage): void {
    const { request, response, visit } = this.#of;
    clearTimeout(this.#answerTimer);
    // Refused before it was invited: whether the body still comes is unknown, so nothing may follow on this connection.
    const mustClose = request.headers.expect !== undefined && !this.#invited;
    try {
      relayAnswer(answer, { request, response, visit, mustClose, onData: () => this.#idle.refresh() });
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  #fail(error: Error): void {
    if (this.#ended) return;
    const { request, response } = this.#of;
    this.#abandon();
    sendPage(request, response, errorPage(explained(error), request.headers.accept));
  }

  #abandon(): void {
    const upstream = this.#upstream;
    this.#upstream = undefined;
    upstream?.destroy();
  }

  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#answerTimer);
    clearTimeout(this.#idle);
    this.#abandon(); // does nothing to a request that has given its connection back
    const { request } = this.#of;
    // What is left of an upload that was answered stands before the next request.
    if (this.#hasBody && !isHttp2(request)) request.unpipe().resume();
  }
}

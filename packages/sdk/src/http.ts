/** HTTP with the API key, over Node's own client: bodies are streams in both directions. */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { errorFromBody, InstaVMError } from './errors.ts';

export type Query = Readonly<Record<string, string | number | boolean | readonly string[] | undefined>>;

export type HttpRequest = {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  readonly path: string;
  readonly query?: Query;
  readonly json?: unknown;
  readonly body?: AsyncIterable<Uint8Array> | Uint8Array;
  readonly signal?: AbortSignal | undefined;
};

const MAX_ERROR_BYTES = 64 * 1024;

export class HttpClient {
  readonly #base: URL;
  readonly #apiKey: string;
  readonly #agent: HttpAgent | HttpsAgent;

  constructor(baseUrl: string, apiKey: string) {
    this.#base = new URL(baseUrl);
    this.#apiKey = apiKey;
    // Idle sockets do not keep the process alive.
    this.#agent =
      this.#base.protocol === 'https:' ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
  }

  /** @throws InstaVMError */
  async json<T>(request: HttpRequest): Promise<T> {
    const chunks: Buffer[] = [];
    for await (const chunk of contentsOf(await this.stream(request))) chunks.push(chunk);
    const text = Buffer.concat(chunks).toString('utf8');
    try {
      return JSON.parse(text) as T;
    } catch (cause) {
      throw new InstaVMError('unexpected_answer', `the server's answer is not JSON: ${text.slice(0, 200)}`, { cause });
    }
  }

  /** The body of a successful answer. A body that breaks off ends the stream with an error. @throws InstaVMError */
  async stream(request: HttpRequest): Promise<IncomingMessage> {
    const answer = await this.#send(request);
    const status = answer.statusCode ?? 0;
    if (status >= 200 && status < 300) return answer;
    const chunks: Buffer[] = [];
    let sizeBytes = 0;
    for await (const chunk of contentsOf(answer)) {
      if (sizeBytes < MAX_ERROR_BYTES) chunks.push(chunk);
      sizeBytes += chunk.length;
    }
    throw errorFromBody(status, Buffer.concat(chunks).toString('utf8'));
  }

  /** Where a WebSocket of the same server is, and what it must be opened with. */
  webSocket(path: string): { readonly url: string; readonly headers: Readonly<Record<string, string>> } {
    const url = this.#url(path);
    url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
    return { url: url.href, headers: { 'x-api-key': this.#apiKey } };
  }

  close(): void {
    this.#agent.destroy();
  }

  #url(path: string, query: Query = {}): URL {
    const url = new URL(this.#base.pathname.replace(/\/+$/, '') + path, this.#base);
    for (const [name, value] of Object.entries(query)) {
      if (value === undefined) continue;
      for (const one of Array.isArray(value) ? value : [value]) url.searchParams.append(name, String(one));
    }
    return url;
  }

  #send({ method, path, query, json, body, signal }: HttpRequest): Promise<IncomingMessage> {
    const url = this.#url(path, query);
    const payload = json === undefined ? body : Buffer.from(JSON.stringify(json));
    const headers: Record<string, string | number> = { 'x-api-key': this.#apiKey, accept: '*/*' };
    if (payload !== undefined)
      headers['content-type'] = json === undefined ? 'application/octet-stream' : 'application/json';
    if (payload instanceof Uint8Array) headers['content-length'] = payload.length;
    return new Promise((resolve, reject) => {
      const send = url.protocol === 'https:' ? httpsRequest : httpRequest;
      const outgoing = send(url, { method, headers, agent: this.#agent, ...(signal ? { signal } : {}) });
      let answered = false;
      outgoing.once('response', (answer) => {
        answered = true;
        resolve(answer);
      });
      outgoing.on('error', (cause: NodeJS.ErrnoException) => {
        // The server may answer (a refusal) and close before it has read the whole body.
        if (!answered) reject(connectionError(url, cause));
      });
      if (payload === undefined || payload instanceof Uint8Array) return void outgoing.end(payload);
      // The server takes a connection for idle as long as it knows of no request, however long the first bytes take.
      outgoing.flushHeaders();
      pipeline(Readable.from(payload, { objectMode: false, highWaterMark: 512 * 1024 }), outgoing).catch(
        (cause: unknown) => {
          if (!answered) reject(cause instanceof Error && !isSocketError(cause) ? cause : connectionError(url, cause));
        },
      );
    });
  }
}

/** The body of an answer. @throws InstaVMError `connection_lost` when it breaks off */
export async function* contentsOf(answer: IncomingMessage): AsyncGenerator<Buffer> {
  try {
    yield* answer as AsyncIterable<Buffer>;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ECONNRESET') throw cause;
    throw new InstaVMError('connection_lost', 'the answer broke off', { retryable: 'unknown', cause });
  }
}

const isSocketError = (error: Error): boolean =>
  'syscall' in error || (error as NodeJS.ErrnoException).code === 'ERR_STREAM_PREMATURE_CLOSE';

function connectionError(url: URL, cause: unknown): Error {
  const { code = '', name = '', message = String(cause) } = cause as Partial<NodeJS.ErrnoException>;
  if (name === 'AbortError') return cause as Error;
  const hint = code === 'ECONNREFUSED' ? 'Is the daemon running? Start it with: npm start' : undefined;
  return new InstaVMError('connection_failed', `no answer from ${url.origin}: ${message}`, {
    retryable: 'unknown',
    cause,
    hint,
  });
}

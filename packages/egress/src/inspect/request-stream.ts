/**
 * All requests of one HTTP/1 connection, one after the other: where each head ends, and where its body does (RFC 9112 §6, §7.1). A head,
 * the size of a chunk and the trailers are held until they are complete and agree; the content of a body passes as it comes.
 */
import { Disagreement } from './agreement.ts';
import { HeldBytes } from './held-bytes.ts';
import { type Body, checkFirstByte, checkTrailer, RequestHead, type Site } from './request-head.ts';

/** Request line with all headers; also a trailer section. Servers take 8 to 64 KiB. */
export const LARGEST_HEAD_BYTES = 64 * 1024;
/**
 * At most 256 MiB a chunk, which a 32-bit counter holds. Chunk extensions are refused: nobody sends them, and servers disagree
 * about where they end.
 */
const CHUNK_SIZE = /^[0-9A-Fa-f]{1,7}$/;

const LF = 0x0a;

/** What the next line is. */
type Expected = 'request' | 'field' | 'chunk size' | 'chunk end' | 'trailer';

export class RequestStream {
  readonly #site: Site;
  readonly #held = new HeldBytes(LARGEST_HEAD_BYTES, 'an HTTP/1 request head');
  #expected: Expected = 'request';
  #lineStart = 0;
  #heads = 0;
  /** Bytes of content that pass before the next line. */
  #content = 0;
  #head: RequestHead | undefined;

  constructor(site: Site) {
    this.#site = site;
  }

  /** Requests whose head has passed. */
  get heads(): number {
    return this.#heads;
  }

  /** A head, or the frame of a chunk, has begun and cannot be judged yet. */
  get holdsBytes(): boolean {
    return this.#held.length > 0;
  }

  /** @returns how much of `chunk` was used: all, unless a request that asks for a WebSocket has just ended */
  push(chunk: Buffer, forward: Buffer[]): { used: number; asksForWebSocket: boolean } {
    let at = 0;
    while (at < chunk.length) {
      if (this.#content > 0) {
        const content = chunk.subarray(at, at + this.#content);
        forward.push(content);
        this.#content -= content.length;
        at += content.length;
        continue;
      }
      if (this.#expected === 'request' && this.#held.length === 0) checkFirstByte(chunk[at], this.#site);
      const lineEnd = chunk.indexOf(LF, at);
      const end = lineEnd < 0 ? chunk.length : lineEnd + 1;
      this.#held.append(chunk.subarray(at, end));
      at = end;
      if (lineEnd < 0) break;
      const asksForWebSocket = this.#line(this.#takeLine(), forward);
      if (asksForWebSocket) return { used: at, asksForWebSocket };
    }
    return { used: at, asksForWebSocket: false };
  }

  #takeLine(): string {
    const line = this.#held.view(this.#lineStart).toString('latin1');
    this.#lineStart = this.#held.length;
    if (!line.endsWith('\r\n')) throw new Disagreement('A line of the HTTP/1 request ends with LF alone.');
    return line.slice(0, -2);
  }

  #line(line: string, forward: Buffer[]): boolean {
    switch (this.#expected) {
      case 'request':
        this.#head = new RequestHead(line, this.#site);
        this.#expected = 'field';
        return false;
      case 'field': {
        if (line !== '') {
          this.#head?.field(line);
          return false;
        }
        const finished = this.#head?.finish();
        this.#heads += 1;
        this.#begin(finished?.body ?? 0);
        this.#release(forward);
        return finished?.asksForWebSocket ?? false;
      }
      case 'chunk size': {
        if (!CHUNK_SIZE.test(line))
          throw new Disagreement('The size of a chunk in the HTTP/1 request is not a plain hexadecimal number.');
        this.#content = Number.parseInt(line, 16);
        this.#expected = this.#content > 0 ? 'chunk end' : 'trailer';
        // The size of the last chunk waits for the trailers: a server may take it as the end of the request.
        if (this.#content > 0) this.#release(forward);
        return false;
      }
      case 'chunk end':
        if (line !== '') throw new Disagreement('A chunk of the HTTP/1 request is longer than its size.');
        this.#expected = 'chunk size';
        this.#release(forward);
        return false;
      case 'trailer':
        if (line !== '') {
          checkTrailer(line);
          return false;
        }
        this.#begin(0);
        this.#release(forward);
        return false;
    }
  }

  /** What follows a head: its body, or the next request. */
  #begin(body: Body): void {
    this.#expected = body === 'chunked' ? 'chunk size' : 'request';
    this.#content = body === 'chunked' ? 0 : body;
  }

  #release(forward: Buffer[]): void {
    forward.push(this.#held.take());
    this.#lineStart = 0;
  }
}

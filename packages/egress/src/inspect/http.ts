/**
 * Port 80, allowed for one name: does every request of the connection ask for that name? The choices:
 *
 * - Not HTTP/1, HTTP/2 with prior knowledge, CONNECT, or anything that two servers could read differently: mismatch.
 * - HTTP/1.0 without Host: agrees. It names no other host, and the address that was dialled comes from the allowed name.
 * - `Upgrade: websocket` in the first request: what the program sends after it waits for the answer of the server. With 101 the rest of the
 *   connection passes unseen, else it is HTTP/1 as before. In a later request it is a mismatch, because an answer could not be told from the
 *   ones before it.
 * - Any other `Upgrade` (Java's client asks for h2c each time): an ordinary request. Should the server accept, what follows is not HTTP/1 and ends
 *   the connection.
 *
 * What cannot be seen from here: a front that routes by other headers (`X-Forwarded-Host`), or that breaks the framing of RFC 9112 by
 * itself, so that it takes the body of a request for the next one.
 */
import { type AgreementCheck, checkWith, Disagreement, type Inspector } from './agreement.ts';
import { HeldBytes } from './held-bytes.ts';
import { RequestStream } from './request-stream.ts';

/** What a program may send ahead of the answer to its upgrade. */
const LARGEST_WAITING_BYTES = 64 * 1024;

/**
 * @param name lower case, A-labels, no trailing dot
 * @param port the port that was asked for; `Host` may repeat it
 */
export function httpCheck(name: string, port: number): AgreementCheck {
  return checkWith(new HttpInspector(name, port));
}

export class HttpInspector implements Inspector {
  readonly #requests: RequestStream;
  readonly #answer = new FirstAnswer();
  readonly #waiting = new HeldBytes(LARGEST_WAITING_BYTES, 'data ahead of the answer to its upgrade');
  /** `waiting` for the answer to an upgrade; `open` after it was accepted. */
  #phase: 'requests' | 'waiting' | 'open' = 'requests';
  /** The server has said something before an upgrade was asked for, which will not be its answer. */
  #serverSpoke = false;

  constructor(name: string, port: number) {
    this.#requests = new RequestStream({ name, port });
  }

  push(chunk: Buffer): Buffer[] {
    if (this.#phase === 'open') return [chunk];
    if (this.#phase === 'waiting') {
      this.#waiting.append(chunk);
      return [];
    }
    const forward: Buffer[] = [];
    const { used, asksForWebSocket } = this.#requests.push(chunk, forward);
    if (asksForWebSocket) {
      if (this.#serverSpoke || this.#requests.heads > 1)
        throw new Disagreement('The program asks for a WebSocket on a connection that had other requests before.');
      this.#phase = 'waiting';
      this.#waiting.append(chunk.subarray(used));
    }
    return forward;
  }

  end(): Buffer[] {
    if (this.#requests.holdsBytes || this.#waiting.length > 0) {
      throw new Disagreement('The program ended the connection within a request that could not be checked yet.');
    }
    return [];
  }

  answered(chunk: Buffer): Buffer[] {
    if (this.#phase === 'open') return [];
    const answer = this.#answer.push(chunk);
    if (this.#phase !== 'waiting') {
      this.#serverSpoke = true;
      return [];
    }
    if (answer === 'unknown') return [];
    this.#phase = answer === 'switched' ? 'open' : 'requests';
    return this.#waiting.length > 0 ? this.push(this.#waiting.take()) : [];
  }
}

const LF = 0x0a;
const CR = 0x0d;
const STATUS_BYTES = 'HTTP/1.1 101'.length;

/** The status of the first answer that is not an interim one (RFC 9110 §15.2: 100 and 103 may come before it). */
class FirstAnswer {
  #line = '';
  #lineBytes = 0;
  #interim = false;
  #answer: 'unknown' | 'switched' | 'other' = 'unknown';

  push(chunk: Buffer): 'unknown' | 'switched' | 'other' {
    for (const byte of chunk) {
      if (this.#answer !== 'unknown') break;
      if (byte === LF) this.#endLine();
      else if (byte !== CR) {
        this.#lineBytes += 1;
        if (!this.#interim && this.#lineBytes <= STATUS_BYTES + 1) this.#line += String.fromCharCode(byte);
        if (!this.#interim && this.#lineBytes === STATUS_BYTES + 1) this.#judge();
      }
    }
    return this.#answer;
  }

  #endLine(): void {
    if (!this.#interim) this.#judge();
    else if (this.#lineBytes === 0) this.#interim = false;
    this.#line = '';
    this.#lineBytes = 0;
  }

  #judge(): void {
    if (/^HTTP\/1\.1 101 ?$/.test(this.#line)) this.#answer = 'switched';
    else if (/^HTTP\/1\.1 1\d\d ?$/.test(this.#line)) this.#interim = true;
    else this.#answer = 'other';
  }
}

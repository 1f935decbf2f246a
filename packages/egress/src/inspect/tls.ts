/**
 * Port 443, allowed for one name: does the TLS handshake ask for that name? Decided from plain text only. The choices:
 *
 * - Another SNI than the name, a malformed ClientHello or an SSLv2 one: mismatch.
 * - No SNI: agrees. It names no other host, and the address that was dialled comes from the allowed name.
 * - encrypted_client_hello (ECH): agrees when the outer SNI does; without SNI it is a mismatch. Browsers send GREASE that cannot be told from
 *   the real thing, and the key for the real thing comes in an HTTPS record.
 * - HelloRetryRequest: the client's second ClientHello is checked like the first, since a server may route by it. To know whether there will
 *   be one, what follows the first (early data) waits for the server's answer; all else of the connection passes.
 * - `SSH-2.0-…`: passes (SSH on 443 is common), as long as its first line cannot be read as a request line of HTTP.
 * - Anything else: the rules of HTTP/1, which refuse what is not HTTP/1. A server might read as HTTP what we do not recognise.
 *
 * What cannot be seen from here: the `Host` inside the encryption, the inner name of a real ECH whose key the guest knows by itself, and a
 * renegotiation of TLS 1.2. A front that serves several names has to compare them itself (421), or a later stage has to terminate TLS.
 */
import { type AgreementCheck, checkWith, Disagreement, type Inspector, quoted } from './agreement.ts';
import { type ClientHello, ClientHelloReader, RECORD_HANDSHAKE } from './client-hello.ts';
import { HeldBytes } from './held-bytes.ts';
import { HttpInspector } from './http.ts';

/** Early data that may wait for the server's first answer; servers allow about 16 KiB of it. */
const LARGEST_WAITING_BYTES = 64 * 1024;

/** @param name lower case, A-labels, no trailing dot */
export function tlsCheck(name: string): AgreementCheck {
  return checkWith(new FirstBytes(name));
}

const SSH = Buffer.from('SSH-');
/** RFC 4253 §4.2. */
const LONGEST_SSH_LINE_BYTES = 255;
const LF = 0x0a;

/** Holds bytes until they tell the protocol, then hands over to its inspector. */
class FirstBytes implements Inspector {
  readonly #name: string;
  readonly #held = new HeldBytes(LONGEST_SSH_LINE_BYTES, 'a first line of SSH');
  #inspector: Inspector | undefined;

  constructor(name: string) {
    this.#name = name;
  }

  push(chunk: Buffer): Buffer[] {
    if (this.#inspector) return this.#inspector.push(chunk);
    if (this.#held.length === 0 && chunk[0] === RECORD_HANDSHAKE)
      return this.#become(new TlsInspector(this.#name), chunk);

    for (const [index, byte] of chunk.entries()) {
      const isSsh = this.#held.length >= SSH.length || byte === SSH[this.#held.length];
      if (!isSsh) return this.#become(new HttpInspector(this.#name, 443), this.#held.take(), chunk.subarray(index));
      this.#held.append(chunk.subarray(index, index + 1));
      if (byte !== LF) continue;
      checkSshLine(this.#held.view().toString('latin1'));
      return this.#become(passing, this.#held.take(), chunk.subarray(index + 1));
    }
    return [];
  }

  #become(inspector: Inspector, ...chunks: Buffer[]): Buffer[] {
    this.#inspector = inspector;
    return chunks.filter((chunk) => chunk.length > 0).flatMap((chunk) => inspector.push(chunk));
  }

  end(): Buffer[] {
    if (this.#inspector) return this.#inspector.end();
    if (this.#held.length > 0) throw new Disagreement('The program ended the connection within its first line.');
    return [];
  }

  /** What a server says first (an SSH banner) is the answer to nothing. */
  answered(chunk: Buffer): Buffer[] {
    return this.#inspector?.answered(chunk) ?? [];
  }
}

function checkSshLine(line: string): void {
  if (/^SSH-(2\.0|1\.99)-[\x20-\x7e]+\r?\n$/.test(line) && !/HTTP\//i.test(line)) return;
  throw new Disagreement(`The program sent ${quoted(line.trimEnd())} on port 443, which is neither TLS nor SSH.`);
}

const passing: Inspector = { push: (chunk) => [chunk], end: () => [], answered: () => [] };

/** `first` and `second` ClientHello; `waiting` for the server between them; `open` when nothing is left to see. */
type Phase = 'first' | 'waiting' | 'second' | 'open';

class TlsInspector implements Inspector {
  readonly #name: string;
  readonly #waiting = new HeldBytes(LARGEST_WAITING_BYTES, 'TLS data ahead of the answer of the server');
  readonly #answer = new ServerHelloStart();
  #phase: Phase = 'first';
  #hello = new ClientHelloReader();
  #other = new OtherRecords();

  constructor(name: string) {
    this.#name = name;
  }

  push(chunk: Buffer): Buffer[] {
    if (this.#phase === 'open') return [chunk];
    if (this.#phase === 'waiting') {
      this.#waiting.append(chunk);
      return [];
    }
    const skipped = this.#phase === 'second' && !this.#hello.holdsBytes ? this.#other.push(chunk) : 0;
    const forward = skipped > 0 ? [chunk.subarray(0, skipped)] : [];
    const found = this.#hello.push(chunk.subarray(skipped));
    if (!found) return forward;

    checkHello(found.hello, this.#name);
    forward.push(found.records);
    this.#phase = this.#phase === 'first' ? 'waiting' : 'open';
    const rest = chunk.subarray(skipped + found.used);
    return rest.length > 0 ? forward.concat(this.push(rest)) : forward;
  }

  end(): Buffer[] {
    if (this.#hello.holdsBytes || this.#waiting.length > 0) {
      throw new Disagreement('The program ended the connection before its TLS handshake could be checked.');
    }
    return [];
  }

  answered(chunk: Buffer): Buffer[] {
    if (this.#phase !== 'waiting') return [];
    const answer = this.#answer.push(chunk);
    if (answer === 'unknown') return [];
    this.#phase = answer === 'retry' ? 'second' : 'open';
    return this.#waiting.length > 0 ? this.push(this.#waiting.take()) : [];
  }
}

function checkHello(hello: ClientHello, name: string): void {
  if (hello.serverName === undefined) {
    if (!hello.hasEncryptedHello) return;
    throw new Disagreement(
      `The TLS handshake hides its server name (ECH), but this connection was allowed for ${quoted(name)} only.`,
    );
  }
  if (hello.serverName.toLowerCase() === name) return;
  throw new Disagreement(
    `The TLS handshake asks for ${quoted(hello.serverName)}, but this connection was allowed for ${quoted(name)} only.`,
  );
}

const RECORD_CHANGE_CIPHER_SPEC = 0x14;
const RECORD_ALERT = 0x15;
const RECORD_APPLICATION_DATA = 0x17;
const RECORD_HEADER_BYTES = 5;

/** What may stand between the two ClientHellos: early data that the server discards, and records for the sake of middleboxes. */
class OtherRecords {
  readonly #header = Buffer.alloc(RECORD_HEADER_BYTES);
  #headerBytes = 0;
  #bodyBytes = 0;

  /** @returns how much of `chunk` comes before the next handshake record */
  push(chunk: Buffer): number {
    let at = 0;
    while (at < chunk.length) {
      if (this.#bodyBytes > 0) {
        const body = Math.min(this.#bodyBytes, chunk.length - at);
        this.#bodyBytes -= body;
        at += body;
        continue;
      }
      const byte = chunk[at] ?? 0;
      if (this.#headerBytes === 0 && byte === RECORD_HANDSHAKE) return at;
      if (this.#headerBytes === 0 && !isOther(byte))
        throw new Disagreement('The TLS handshake is malformed (unknown record).');
      this.#header[this.#headerBytes++] = byte;
      at += 1;
      if (this.#headerBytes < RECORD_HEADER_BYTES) continue;
      this.#headerBytes = 0;
      this.#bodyBytes = this.#header.readUInt16BE(3);
    }
    return at;
  }
}

function isOther(type: number): boolean {
  return type === RECORD_CHANGE_CIPHER_SPEC || type === RECORD_ALERT || type === RECORD_APPLICATION_DATA;
}

/** RFC 8446 §4.1.3: SHA-256 of "HelloRetryRequest", where a ServerHello has its random. */
const RETRY_RANDOM = Buffer.from('cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c', 'hex');
const HANDSHAKE_SERVER_HELLO = 2;
const ALERT_RECORD_BYTES = RECORD_HEADER_BYTES + 2;
/** Record header, handshake header, legacy_version. */
const RANDOM_OFFSET = RECORD_HEADER_BYTES + 4 + 2;

/** The first bytes of the server: is it a HelloRetryRequest? */
class ServerHelloStart {
  readonly #start = Buffer.alloc(RANDOM_OFFSET + RETRY_RANDOM.length);
  #length = 0;

  push(chunk: Buffer): 'unknown' | 'retry' | 'other' {
    for (const byte of chunk) {
      this.#start[this.#length++] = byte;
      // A warning (unrecognized_name) may come before; its record has always this length.
      if (this.#length === ALERT_RECORD_BYTES && this.#start[0] === RECORD_ALERT) this.#length = 0;
      else if (this.#length === 1 && byte !== RECORD_HANDSHAKE && byte !== RECORD_ALERT) return 'other';
      else if (this.#length === RECORD_HEADER_BYTES + 1 && this.#start[0] === RECORD_HANDSHAKE) {
        if (byte !== HANDSHAKE_SERVER_HELLO) return 'other';
      } else if (this.#length === this.#start.length) {
        return this.#start.subarray(RANDOM_OFFSET).equals(RETRY_RANDOM) ? 'retry' : 'other';
      }
    }
    return 'unknown';
  }
}

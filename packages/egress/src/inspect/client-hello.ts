/**
 * The first message of a TLS client (RFC 8446 §4.1.2, RFC 5246 §7.4.1.2) and the name in it (RFC 6066 §3). Strict: every length must add up,
 * because a server that reads a crooked message differently would see another name than we do.
 */
import { Disagreement } from './agreement.ts';
import { HeldBytes } from './held-bytes.ts';

/** Largest ClientHello without its four bytes of header. Real ones with post-quantum keys have about 2 KiB. */
const LARGEST_HELLO_BYTES = 16 * 1024;
/** With the record headers; leaves room for a client that cuts its hello into many small records. */
const LARGEST_HELD_BYTES = 2 * LARGEST_HELLO_BYTES;
const LARGEST_RECORD_BYTES = 16 * 1024;

const RECORD_HEADER_BYTES = 5;
const HANDSHAKE_HEADER_BYTES = 4;
export const RECORD_HANDSHAKE = 0x16;
const HANDSHAKE_CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
/** RFC 9849 §5. */
const EXTENSION_ENCRYPTED_CLIENT_HELLO = 0xfe0d;
const NAME_TYPE_HOST = 0;

export type ClientHello = {
  /** As it was written; undefined without a server_name extension. */
  readonly serverName: string | undefined;
  /** Real or GREASE: the two cannot be told apart from outside. */
  readonly hasEncryptedHello: boolean;
};

/** Gathers one ClientHello from TLS records, over any number of chunks. */
export class ClientHelloReader {
  readonly #raw = new HeldBytes(LARGEST_HELD_BYTES, 'a TLS ClientHello with record headers');
  readonly #message = new HeldBytes(LARGEST_HELLO_BYTES + HANDSHAKE_HEADER_BYTES, 'a TLS ClientHello');
  #recordStart = 0;

  get holdsBytes(): boolean {
    return this.#raw.length > 0;
  }

  /**
   * @returns undefined while more bytes are needed; else the message, its records as they came, and how much of `chunk` belongs to them
   */
  push(chunk: Buffer): { hello: ClientHello; records: Buffer; used: number } | undefined {
    let used = 0;
    while (used < chunk.length) {
      const take = Math.min(this.#recordEnd() - this.#raw.length, chunk.length - used);
      this.#raw.append(chunk.subarray(used, used + take));
      used += take;
      const hello = this.#raw.length === this.#recordEnd() ? this.#recordComplete() : undefined;
      if (hello) return { hello, records: this.#raw.take(), used };
    }
    return undefined;
  }

  /** Where the current record ends as far as is known: after its header, once that is here. */
  #recordEnd(): number {
    const header = this.#raw.view(this.#recordStart, this.#recordStart + RECORD_HEADER_BYTES);
    if (header.length < RECORD_HEADER_BYTES) return this.#recordStart + RECORD_HEADER_BYTES;
    return this.#recordStart + RECORD_HEADER_BYTES + recordLength(header);
  }

  #recordComplete(): ClientHello | undefined {
    const fragment = this.#raw.view(this.#recordStart + RECORD_HEADER_BYTES);
    this.#recordStart = this.#raw.length;
    this.#message.append(fragment);
    const message = this.#message.view();
    if (message[0] !== HANDSHAKE_CLIENT_HELLO) throw malformed('it does not begin with a ClientHello');
    if (message.length < HANDSHAKE_HEADER_BYTES) return undefined;
    const end = HANDSHAKE_HEADER_BYTES + message.readUIntBE(1, 3);
    if (end > HANDSHAKE_HEADER_BYTES + LARGEST_HELLO_BYTES) throw malformed('its ClientHello is too long');
    if (message.length > end) throw malformed('something follows the ClientHello in the same record');
    return message.length === end ? parseClientHello(message.subarray(HANDSHAKE_HEADER_BYTES)) : undefined;
  }
}

function recordLength(header: Buffer): number {
  const length = header.readUInt16BE(3);
  if (header[0] !== RECORD_HANDSHAKE) throw malformed('another record interrupts the ClientHello');
  if (header[1] !== 3) throw malformed('its record version is not one of TLS');
  if (length === 0 || length > LARGEST_RECORD_BYTES) throw malformed('the length of a record is out of range');
  return length;
}

/** @param body without the handshake header */
export function parseClientHello(body: Buffer): ClientHello {
  const fields = new Fields(body);
  fields.skip(2 + 32); // legacy_version, random
  fields.vector(1); // legacy_session_id
  fields.vector(2); // cipher_suites
  fields.vector(1); // legacy_compression_methods
  if (fields.atEnd) return { serverName: undefined, hasEncryptedHello: false };

  const extensions = fields.vector(2);
  fields.expectEnd();
  const seen = new Map<number, Fields>();
  while (!extensions.atEnd) {
    const type = extensions.number(2);
    if (seen.has(type)) throw malformed(`extension ${type} comes twice`);
    seen.set(type, extensions.vector(2));
  }
  const serverName = seen.get(EXTENSION_SERVER_NAME);
  return {
    serverName: serverName && hostNameOf(serverName),
    hasEncryptedHello: seen.has(EXTENSION_ENCRYPTED_CLIENT_HELLO),
  };
}

/** RFC 6066 allows one name of each type and defines one type; anything beyond one host_name is read differently by different servers. */
function hostNameOf(extension: Fields): string {
  const list = extension.vector(2);
  extension.expectEnd();
  if (list.number(1) !== NAME_TYPE_HOST) throw malformed('its server_name is not a host name');
  const name = list.vector(2).rest();
  if (!list.atEnd) throw malformed('it has several server names');
  if (name === '') throw malformed('its server name is empty');
  return name;
}

/** Reads big-endian numbers and length-prefixed vectors; any step over the end is a mismatch. */
class Fields {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get atEnd(): boolean {
    return this.#at === this.#bytes.length;
  }

  expectEnd(): void {
    if (!this.atEnd) throw malformed('its lengths do not add up');
  }

  skip(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw malformed('its lengths do not add up');
    const bytes = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return bytes;
  }

  number(width: 1 | 2): number {
    return this.skip(width).readUIntBE(0, width);
  }

  vector(lengthWidth: 1 | 2): Fields {
    return new Fields(this.skip(this.number(lengthWidth)));
  }

  rest(): string {
    return this.skip(this.#bytes.length - this.#at).toString('latin1');
  }
}

function malformed(why: string): Disagreement {
  return new Disagreement(`The TLS handshake is malformed (${why}), so its server name cannot be checked.`);
}

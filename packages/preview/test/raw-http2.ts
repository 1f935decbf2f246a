/** HTTP/2 frames by hand, for requests that no client library sends (RFC 9113 §4, RFC 7541 §6.2.2). */
import type { Duplex } from 'node:stream';

const FRAME = { data: 0, headers: 1, reset: 3, settings: 4, goaway: 7 } as const;
const END_STREAM = 1;
const END_HEADERS = 4;

export type Outcome =
  | { readonly kind: 'answered'; readonly block: Buffer }
  | { readonly kind: 'reset' | 'goaway'; readonly code: number }
  | { readonly kind: 'closed' };

/** Sends one request as stream 1. @returns what it came to; the connection is closed then */
export async function askRaw(
  socket: Duplex,
  fields: readonly (readonly [name: string, value: string])[],
  body?: string,
): Promise<Outcome> {
  const block = Buffer.concat(fields.map(([name, value]) => literal(name, value)));
  const isBare = body === undefined;
  socket.write('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
  socket.write(frame(FRAME.settings, 0, 0, Buffer.alloc(0)));
  socket.write(frame(FRAME.headers, END_HEADERS | (isBare ? END_STREAM : 0), 1, block));
  if (!isBare) socket.write(frame(FRAME.data, END_STREAM, 1, Buffer.from(body, 'latin1')));
  try {
    for await (const { type, payload } of frames(socket)) {
      if (type === FRAME.headers) return { kind: 'answered', block: payload };
      if (type === FRAME.reset) return { kind: 'reset', code: payload.readUInt32BE(0) };
      if (type === FRAME.goaway) return { kind: 'goaway', code: payload.readUInt32BE(4) };
    }
    return { kind: 'closed' };
  } finally {
    socket.destroy();
  }
}

async function* frames(socket: Duplex): AsyncGenerator<{ type: number; payload: Buffer }> {
  let buffered: Buffer = Buffer.alloc(0);
  for await (const chunk of socket) {
    buffered = Buffer.concat([buffered, chunk as Buffer]);
    while (buffered.length >= 9 && buffered.length >= 9 + buffered.readUIntBE(0, 3)) {
      const end = 9 + buffered.readUIntBE(0, 3);
      yield { type: buffered.readUInt8(3), payload: buffered.subarray(9, end) };
      buffered = buffered.subarray(end);
    }
  }
}

function frame(type: number, flags: number, stream: number, payload: Buffer): Buffer {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, payload]);
}

/** A field without indexing, with a new name; neither is longer than 127 bytes + 127, so that two bytes hold a length. */
const literal = (name: string, value: string): Buffer => Buffer.concat([Buffer.from([0]), text(name), text(value)]);

function text(of: string): Buffer {
  const bytes = Buffer.from(of, 'latin1');
  const length = bytes.length < 127 ? [bytes.length] : [127, bytes.length - 127];
  return Buffer.concat([Buffer.from(length), bytes]);
}

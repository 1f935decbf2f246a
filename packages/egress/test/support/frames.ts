/** HTTP/2 by hand (RFC 9113 §4.1), for what no client would send. */
export const DATA = 0;
export const HEADERS = 1;
export const RST_STREAM = 3;
export const SETTINGS = 4;
export const CONTINUATION = 9;
export const END_HEADERS = 4;

export const PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', 'latin1');

export function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
}

/** The beginning of a connection. */
export const HELLO = Buffer.concat([PREFACE, frame(SETTINGS, 0, 0)]);

/** Literals without indexing (RFC 7541 §6.2.2), each shorter than 127 bytes. */
export const headerBlock = (headers: readonly (readonly [string, string])[]): Buffer =>
  Buffer.concat(
    headers.flatMap(([name, value]) => [
      Buffer.from([0, name.length]),
      Buffer.from(name, 'latin1'),
      Buffer.from([value.length]),
      Buffer.from(value, 'latin1'),
    ]),
  );

export const connectFrame = (stream: number, authority: string): Buffer =>
  frame(
    HEADERS,
    END_HEADERS,
    stream,
    headerBlock([
      [':method', 'CONNECT'],
      [':authority', authority],
    ]),
  );

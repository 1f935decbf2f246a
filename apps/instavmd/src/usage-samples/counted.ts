/** Counts what goes through a connection, where it already passes: no byte is copied for it. */
import type { Duplex } from 'node:stream';

export function counted(stream: Duplex, read: (bytes: number) => void, written: (bytes: number) => void): Duplex {
  const push = stream.push.bind(stream);
  stream.push = (chunk: Buffer | null, encoding) => {
    if (chunk !== null) read(chunk.length);
    return push(chunk, encoding);
  };
  const write = stream._write.bind(stream);
  stream._write = (chunk: Buffer | string, encoding, callback) => {
    written(sizeOf(chunk, encoding));
    write(chunk, encoding, callback);
  };
  const writev = stream._writev?.bind(stream);
  if (writev !== undefined)
    stream._writev = (chunks, callback) => {
      for (const { chunk, encoding } of chunks) written(sizeOf(chunk, encoding));
      writev(chunks, callback);
    };
  return stream;
}

/** HTTP/2 streams take text as it is. */
const sizeOf = (chunk: Buffer | string, encoding: BufferEncoding): number =>
  typeof chunk === 'string' ? Buffer.byteLength(chunk, encoding) : chunk.length;

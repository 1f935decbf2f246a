/** Bytes of any kind as a JSON string, piece by piece: what is no UTF-8 becomes U+FFFD, and no more than a piece is held. */

/** The inside of the string, without its quotes. */
export function* jsonText(pieces: Iterable<Uint8Array>): Generator<string> {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  for (const piece of pieces) yield escaped(decoder.decode(piece, { stream: true }));
  yield escaped(decoder.decode());
}

/** A decoder holds an unfinished character back, so no piece of text ends inside a surrogate pair. */
const escaped = (text: string): string => JSON.stringify(text).slice(1, -1);

/**
 * What every inspection of a connection has in common: bytes of the guest go in, the same bytes come out in the same order, until something
 * disagrees with the name that the connection was allowed for. Nothing here or beside it does I/O, decrypts, or changes a byte.
 */

/** Bytes that may go on now, unchanged and in order; or why the connection has to end, as a sentence for people. */
export type Agreement = { readonly forward: readonly Buffer[] } | { readonly mismatch: string };

/** One for each connection. After a mismatch it says the same for ever, and nothing more goes on. */
export interface AgreementCheck {
  /** Bytes from the guest on their way out. The check may keep slices of `chunk`; it never writes to it. */
  push(chunk: Buffer): Agreement;
  /** The guest ended its side. A beginning that cannot be judged yet is a mismatch, because a server may act on it. */
  end(): Agreement;
  /**
   * Bytes of the server, before they go to the guest: they tell whether it accepted an upgrade, or wants another ClientHello.
   * @returns bytes of the guest that waited for this answer
   */
  answered(chunk: Buffer): Agreement;
}

/** The inside of a check: returns what goes on, throws {@link Disagreement}. */
export interface Inspector {
  push(chunk: Buffer): Buffer[];
  end(): Buffer[];
  answered(chunk: Buffer): Buffer[];
}

/** Never leaves this directory: `checkWith` turns it into a mismatch. */
export class Disagreement extends Error {}

export function checkWith(inspector: Inspector): AgreementCheck {
  let failed: { readonly mismatch: string } | undefined;
  const judged = (step: () => Buffer[]): Agreement => {
    if (failed) return failed;
    try {
      return { forward: step() };
    } catch (error) {
      if (!(error instanceof Disagreement)) throw error;
      failed = { mismatch: error.message };
      return failed;
    }
  };
  return {
    push: (chunk) => judged(() => (chunk.length === 0 ? [] : inspector.push(chunk))),
    end: () => judged(() => inspector.end()),
    answered: (chunk) => judged(() => (chunk.length === 0 ? [] : inspector.answered(chunk))),
  };
}

/** Most that a sentence repeats of what the guest wrote. */
const QUOTED_CHARACTERS = 100;

/** Text of the guest, safe in a log line and on a terminal. */
export function quoted(text: string): string {
  const cut = text.length > QUOTED_CHARACTERS ? `${text.slice(0, QUOTED_CHARACTERS)}…` : text;
  return `"${cut.replace(/[^\x20-\x7e…]/g, '?')}"`;
}

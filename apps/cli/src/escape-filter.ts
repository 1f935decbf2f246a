/** Finds the escape in what is typed, as ssh(1) has it: at the beginning of a line, the character, then "." to detach, or itself to be typed. */

const LINE_ENDS: ReadonlySet<number> = new Set([10, 13]);
const DOT = 46;

export class EscapeFilter {
  readonly #escape: number | undefined;
  #state: 'line' | 'begin' | 'escaped' = 'begin';

  /** @param character one character of ASCII; undefined finds nothing */
  constructor(character: string | undefined) {
    this.#escape = character?.charCodeAt(0);
  }

  /** @returns what goes to the program, and whether to detach after that; nothing is read beyond */
  push(chunk: Uint8Array): { bytes: Uint8Array; detach: boolean } {
    const bytes: number[] = [];
    for (const byte of chunk) {
      if (this.#state === 'escaped') {
        this.#state = 'line';
        if (byte === DOT) return { bytes: Uint8Array.from(bytes), detach: true };
        // Withheld until it was clear that it is no escape; typed twice it stands for itself.
        if (byte !== this.#escape) bytes.push(this.#escape as number);
      } else if (this.#state === 'begin' && byte === this.#escape) {
        this.#state = 'escaped';
        continue;
      }
      bytes.push(byte);
      this.#state = LINE_ENDS.has(byte) ? 'begin' : 'line';
    }
    return { bytes: Uint8Array.from(bytes), detach: false };
  }
}

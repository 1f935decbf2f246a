/** The terminal that this program runs on: its size, its raw mode, and that it is left as it was found, however this program ends. */
import { execFileSync } from 'node:child_process';
import { constants } from 'node:os';

/** Leaves what full-screen programs switch on: alternate screen, hidden cursor, bracketed paste, application keys, mouse reports, colours. */
const RESET = '\x1b[?1049l\x1b[?25h\x1b[?2004l\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[0m';

export class LocalTerminal {
  readonly input = process.stdin;
  readonly output = process.stdout;
  /** As stty(1) tells and takes them; undefined while nothing was changed. */
  #modes: string | undefined;

  /** Undefined when the output is no terminal. */
  get size(): { cols: number; rows: number } | undefined {
    const { columns, rows } = this.output;
    return this.output.isTTY && columns > 0 && rows > 0 ? { cols: columns, rows } : undefined;
  }

  /**
   * Every key goes to the program from here on, when the input is a terminal. By stty(1): Node's own raw mode leaves the output
   * processed (libuv sets ONLCR), which would send the cursor to the first column wherever a program only moves it down.
   */
  enterRawMode(): void {
    if (!this.input.isTTY || this.#modes !== undefined) return;
    this.#modes = stty(['-g']).trim();
    stty(['raw', '-echo']);
    process.once('exit', () => this.restore(true));
    for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT', 'SIGQUIT'] as const)
      process.once(signal, () => process.exit(128 + constants.signals[signal]));
  }

  /** @param inTheMiddle the program may have left the screen in any state. Idempotent */
  restore(inTheMiddle: boolean): void {
    if (this.#modes === undefined) return;
    const modes = this.#modes;
    this.#modes = undefined;
    try {
      stty([modes]);
    } catch {
      // The terminal itself has gone, as when its window was closed.
      return;
    }
    if (inTheMiddle && this.output.isTTY) this.output.write(`${RESET}\r\n`);
  }

  onResize(listener: (size: { cols: number; rows: number }) => void): void {
    this.output.on('resize', () => {
      if (this.size) listener(this.size);
    });
  }

  /** A line from this program and not from the one in the sandbox. */
  note(text: string): void {
    const end = this.#modes !== undefined ? '\r\n' : '\n';
    process.stderr.write(process.stderr.isTTY ? `${end}\x1b[2m[${text}]\x1b[0m${end}` : `[${text}]\n`);
  }
}

const stty = (args: readonly string[]): string =>
  execFileSync('stty', args, { stdio: ['inherit', 'pipe', 'pipe'], encoding: 'utf8' });

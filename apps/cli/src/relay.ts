/** Joins a terminal of a sandbox with the one that this program runs on, until the program there ends or the person detaches. */
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Pty, PtyExit } from 'instavm';
import { EscapeFilter } from './escape-filter.ts';
import type { LocalTerminal } from './local-terminal.ts';

/** End of transmission: the end of input, to a program that reads lines (termios(3), VEOF). */
const EOT = '\x04';
/** A connection that takes nothing more does not keep the person from leaving. */
const FLUSH_MS = 500;

export type RelayOptions = { readonly readOnly: boolean; readonly escapeCharacter: string | undefined };

/** @throws InstaVMError when the terminal was lost for good */
export async function relay(
  pty: Pty,
  terminal: LocalTerminal,
  { readOnly, escapeCharacter }: RelayOptions,
): Promise<PtyExit | 'detached'> {
  const { input, output } = terminal;
  let detached = false;
  terminal.enterRawMode();
  terminal.onResize(({ cols, rows }) => {
    // One that is lost meanwhile is told of at its end.
    if (!readOnly) pty.resize(cols, rows).catch(() => {});
  });
  const filter = new EscapeFilter(input.isTTY ? escapeCharacter : undefined);
  let last = 10;
  let typed: Promise<void> = Promise.resolve();
  const type = (text: Uint8Array | string): void => {
    if (!readOnly && text.length > 0) typed = pty.write(text).catch(() => {});
  };
  const leave = (): void => {
    detached = true;
    // What was typed before is on its way then, and not cut off with the connection.
    Promise.race([typed, sleep(FLUSH_MS, undefined, { ref: false })]).then(() => pty.detach());
  };
  input.on('data', (chunk: Buffer) => {
    const { bytes, detach } = filter.push(chunk);
    type(bytes);
    last = bytes.at(-1) ?? last;
    if (detach) leave();
  });
  // In raw mode no key ends the input of a terminal: it ends when the window is closed. What runs in the sandbox is to outlive that.
  if (input.isTTY) input.on('end', leave).on('error', leave);
  // The end of a line that has none yet is a mark of its own.
  else input.on('end', () => type(last === 10 ? EOT : EOT + EOT));
  try {
    for await (const chunk of pty.output) if (!output.write(chunk)) await once(output, 'drain');
    const exit = await pty.wait();
    terminal.restore(false);
    return exit;
  } catch (error) {
    terminal.restore(true);
    if (detached) return 'detached';
    throw error;
  } finally {
    input.destroy();
    output.removeAllListeners('resize');
  }
}

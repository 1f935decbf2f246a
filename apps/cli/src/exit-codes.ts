/** What the exit code of this program says. docs/reference/cli.md has the same table. */
import type { InstaVMError } from 'instavm';

export const EXIT = {
  failed: 1,
  usage: 2,
  notFound: 3,
  refused: 4,
  network: 5,
  notRun: 125,
  notAProgram: 127,
} as const;

/** Of these, the exit code is that of a program in the sandbox, so failures of our own have codes that programs leave alone (as env(1) has it). */
const PASSING_ON = new Set(['exec', 'shell', 'logs']);

const NETWORK = new Set(['connection_failed', 'connection_lost']);
const USAGE = new Set(['invalid_argument', 'invalid_path', 'malformed_request']);

/** @param command the name of the one that failed */
export function exitCodeOf({ code, status }: InstaVMError, command: string): number {
  if (PASSING_ON.has(command)) return code === 'command_not_found' ? EXIT.notAProgram : EXIT.notRun;
  if (NETWORK.has(code)) return EXIT.network;
  if (USAGE.has(code)) return EXIT.usage;
  if (status === 404 || status === 410 || code.endsWith('_not_found')) return EXIT.notFound;
  if (status === 401 || status === 403 || status === 429 || code === 'unauthenticated') return EXIT.refused;
  return EXIT.failed;
}

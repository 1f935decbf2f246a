/**
 * The log: JSON lines for programs, or text for people, on standard output. What requests look like in it: never a query string (it may
 * carry a key), never a header.
 */
import { constants, openSync } from 'node:fs';
import type { FastifyRequest } from 'fastify';
import { type DestinationStream, type Logger, pino } from 'pino';
import sonicBoom from 'sonic-boom';
import type { Config } from './config.ts';

/** Fields that some value of ours or of a library might bring along one day; none does now, and a test greps for what they would hold. */
const SECRET_FIELDS = ['apiKey', 'api_key', 'secret', 'token', 'password', 'cookie', 'authorization'];
const REDACTED = SECRET_FIELDS.flatMap((name) => [name, `*.${name}`]);

/** Of lines that whoever reads the log has not taken; what comes then is dropped, for the daemon does not wait for them. */
const MOST_WAITING_BYTES = 16 * 1024 * 1024;
/** After which what was not taken is offered again. */
const AGAIN_AFTER_MS = 100;
/** How long an ending daemon waits for a reader that takes nothing. */
const LAST_WORDS_MS = 2_000;

export const requestSerializer = (request: FastifyRequest) => ({
  method: request.method,
  path: request.url?.split('?', 1)[0],
  remoteAddress: request.ip,
});

export async function createLogger(
  config: Pick<Config, 'INSTAVM_LOG_LEVEL' | 'INSTAVM_LOG_FORMAT'>,
  destination: DestinationStream = standardOutput(),
): Promise<Logger> {
  const options = {
    level: config.INSTAVM_LOG_LEVEL,
    serializers: { req: requestSerializer },
    redact: REDACTED,
  };
  if (config.INSTAVM_LOG_FORMAT === 'json') return pino(options, destination);
  // Loaded only where somebody reads.
  const { prettyFactory } = await import('pino-pretty');
  const asText = prettyFactory({
    colorize: process.stdout.isTTY,
    ignore: 'pid,hostname',
    translateTime: 'SYS:standard',
  });
  // Line by line: its stream still holds some when the process ends.
  return pino(options, { write: (line) => destination.write(asText(line)) });
}

/**
 * Written at once, by the daemon itself, as far as whoever reads takes it, so that a daemon that ends leaves no line half written in another
 * thread. pino's own, of an earlier sonic-boom, tries for ever at the end when nobody reads any more: a daemon whose log went into a pipe of a
 * program that is gone never ended.
 */
function standardOutput(): DestinationStream {
  let giveUpAt = 0;
  const retryEAGAIN = (): boolean => performance.now() < giveUpAt;
  const fd = neverWaiting();
  const stream = new sonicBoom.SonicBoom({ fd, sync: true, maxLength: MOST_WAITING_BYTES, retryEAGAIN });
  let again: NodeJS.Timeout | undefined;
  stream.on('error', ({ code }: NodeJS.ErrnoException) => {
    clearTimeout(again);
    // Whoever read it is gone. After any other error, as of a full disk, what was kept is tried again with the next line.
    if (code === 'EPIPE') stream.write = () => true;
    else if (code === 'EAGAIN') again = setTimeout(() => stream.write(''), AGAIN_AFTER_MS).unref();
  });
  process.on('exit', () => {
    giveUpAt = performance.now() + LAST_WORDS_MS;
    try {
      stream.flushSync();
    } catch {
      // There is nobody to tell that nobody reads.
    }
  });
  return stream;
}

/** A descriptor of standard output that refuses what its reader has no room for, instead of waiting. */
function neverWaiting(): number {
  // With this, Node makes a pipe or a socket such a one.
  const { fd, isTTY } = process.stdout;
  if (!isTTY) return fd;
  try {
    // One of its own: what else uses the terminal expects to wait.
    return openSync(`/proc/self/fd/${fd}`, constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
  } catch {
    // Of another user's terminal, as after su(1).
    return fd;
  }
}

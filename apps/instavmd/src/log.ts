/**
 * The log: JSON lines for programs, or text for people, on standard output. What requests look like in it: never a query string (it may
 * carry a key), never a header.
 */
import type { FastifyRequest } from 'fastify';
import { type DestinationStream, type Logger, pino } from 'pino';
import sonicBoom from 'sonic-boom';
import type { Config } from './config.ts';

/** Fields that some value of ours or of a library might bring along one day; none does now, and a test greps for what they would hold. */
const SECRET_FIELDS = ['apiKey', 'api_key', 'secret', 'token', 'password', 'cookie', 'authorization'];
const REDACTED = SECRET_FIELDS.flatMap((name) => [name, `*.${name}`]);

/** Of lines that whoever reads the log has not taken; what comes then is dropped, for the daemon does not wait for them. */
const MOST_WAITING_BYTES = 16 * 1024 * 1024;
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
  const { default: pretty } = await import('pino-pretty');
  const stream = pretty({
    colorize: process.stdout.isTTY,
    ignore: 'pid,hostname',
    translateTime: 'SYS:standard',
    destination,
  });
  return pino(options, stream);
}

/**
 * Written beside what the daemon does, and to the end when it ends. pino's own, of an earlier sonic-boom, tries for ever at the end when nobody
 * reads any more: a daemon whose log went into a pipe of a program that is gone never ended.
 */
function standardOutput(): DestinationStream {
  let giveUpAt = Number.POSITIVE_INFINITY;
  const retryEAGAIN = (): boolean => performance.now() < giveUpAt;
  // With this, Node makes a pipe one that never keeps the writer waiting.
  const { fd } = process.stdout;
  const stream = new sonicBoom.SonicBoom({ fd, sync: false, maxLength: MOST_WAITING_BYTES, retryEAGAIN });
  // Whoever read it is gone. After any other error, as of a full disk, what was kept is tried again with the next line.
  stream.on('error', ({ code }: NodeJS.ErrnoException) => {
    if (code === 'EPIPE') stream.write = () => true;
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

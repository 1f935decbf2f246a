/**
 * The log: JSON lines for programs, or text for people, on standard output. What requests look like in it: never a query string (it may
 * carry a key), never a header.
 */
import type { FastifyRequest } from 'fastify';
import { type DestinationStream, type Logger, pino } from 'pino';
import type { Config } from './config.ts';

/** Fields that some value of ours or of a library might bring along one day; none does now, and a test greps for what they would hold. */
const SECRET_FIELDS = ['apiKey', 'api_key', 'secret', 'token', 'password', 'cookie', 'authorization'];
const REDACTED = SECRET_FIELDS.flatMap((name) => [name, `*.${name}`]);

export const requestSerializer = (request: FastifyRequest) => ({
  method: request.method,
  path: request.url?.split('?', 1)[0],
  remoteAddress: request.ip,
});

export async function createLogger(
  config: Pick<Config, 'INSTAVM_LOG_LEVEL' | 'INSTAVM_LOG_FORMAT'>,
  destination?: DestinationStream,
): Promise<Logger> {
  const options = {
    level: config.INSTAVM_LOG_LEVEL,
    serializers: { req: requestSerializer },
    redact: REDACTED,
  };
  if (config.INSTAVM_LOG_FORMAT === 'json') return pino(options, ...(destination ? [destination] : []));
  // Loaded only where somebody reads.
  const { default: pretty } = await import('pino-pretty');
  const stream = pretty({
    colorize: process.stdout.isTTY,
    ignore: 'pid,hostname',
    translateTime: 'SYS:standard',
    ...(destination ? { destination } : {}),
  });
  return pino(options, stream);
}

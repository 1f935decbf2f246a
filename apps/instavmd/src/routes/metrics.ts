/**
 * `/metrics`, in the text format of Prometheus. It tells of all accounts, so no API key opens it: only the token of the configuration
 * does, and without one it is closed. (Being asked from this machine proves nothing: a proxy on it asks for strangers.)
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { ERROR_CATALOG, InstaVMError } from '@instavm/wire';
import type { FastifyInstance, FastifyPluginAsync } from 'fastify';
import type { Services } from '../app.ts';
import { PUBLIC } from '../auth.ts';
import { asInstaVMError } from '../errors.ts';

export const metricsRoutes =
  ({
    operations: { metrics, metricsToken },
    rateLimits,
  }: Pick<Services, 'operations' | 'rateLimits'>): FastifyPluginAsync =>
  async (app) => {
    app.get('/metrics', { ...PUBLIC, schema: { hide: true }, logLevel: 'warn' }, async (request, reply) => {
      if (metricsToken === undefined)
        throw new InstaVMError('not_available', 'metrics are not open', { hint: 'Set INSTAVM_METRICS_TOKEN.' });
      const [, given = ''] = /^Bearer (.+)$/.exec(request.headers.authorization ?? '') ?? [];
      if (!timingSafeEqual(digest(given), digest(metricsToken))) {
        await rateLimits.failure(request.ip);
        throw new InstaVMError('unauthenticated', 'the token is missing or not valid', {
          hint: 'Send INSTAVM_METRICS_TOKEN as Authorization: Bearer.',
        });
      }
      reply.type(metrics.contentType);
      return metrics.text();
    });
  };

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Counts every request by its route as it was registered, whatever the path holds. */
export function measureRequests(app: FastifyInstance, { metrics }: Pick<Services['operations'], 'metrics'>): void {
  metrics.countErrorsOf(Object.keys(ERROR_CATALOG));
  app.addHook('onResponse', async (request, reply) => {
    // Methods that no route has are not taken from whoever asks.
    const route = request.is404 ? 'none' : (request.routeOptions.url ?? 'none');
    const labels = { method: request.is404 ? 'any' : request.method, route, status: String(reply.statusCode) };
    metrics.requests.observe(labels, reply.elapsedTime / 1000);
  });
  app.addHook('onError', async (_request, _reply, error) => {
    // What a hook returns is the error of the next one.
    metrics.errors.inc({ code: asInstaVMError(error).code });
  });
}

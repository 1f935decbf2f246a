/** Whether the daemon lives, and whether it can do its work: for anyone, without a key. */
import type { FastifyPluginAsync } from 'fastify';
import type { Services } from '../app.ts';

export const healthRoutes =
  ({ operations }: Pick<Services, 'operations'>): FastifyPluginAsync =>
  async (app) => {
    const open = { config: { isPublic: true }, schema: { hide: true } };
    app.get('/healthz', open, async () => ({ status: 'ok', ...operations.health() }));
    // A refusal is not logged as an error each time: whoever asks is told, and asks again.
    app.get('/readyz', { ...open, logLevel: 'silent' }, async () => ({
      status: 'ready',
      parts: await operations.readiness.check(),
    }));
  };

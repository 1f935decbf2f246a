/** Readiness: a 200 here means that sandboxes can be made. */
import type { FastifyPluginAsync } from 'fastify';
import type { Services } from '../app.ts';

export const healthRoutes =
  (services: Services): FastifyPluginAsync =>
  async (app) => {
    app.get('/healthz', { config: { isPublic: true }, schema: { hide: true } }, async () => ({
      status: 'ok',
      ...services.health(),
    }));
  };

/**
 * The dashboard's files, as the build left them (scripts/steps/dashboard.ts). Pages may load only what is served here: no inline
 * script or style, nothing from elsewhere, no frame around them.
 */
import { existsSync } from 'node:fs';
import { join, resolve } from 'node:path';
import fastifyStatic from '@fastify/static';
import { InstaVMError } from '@instavm/wire';
import type { FastifyPluginAsync } from 'fastify';

/** Below this path everything is a page of the dashboard. */
export const DASHBOARD = '/dashboard';
const DIRECTORY = resolve(import.meta.dirname, '../../../dashboard/dist');

const HEADERS = {
  'content-security-policy': [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    // Images of a sandbox are shown from memory.
    "img-src 'self' blob:",
    "font-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
  ].join('; '),
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-frame-options': 'DENY',
};

export const dashboardRoutes: FastifyPluginAsync = async (app) => {
  const config = { isPublic: true };
  const hidden = { config, schema: { hide: true } };
  app.addHook('onSend', async (_request, reply) => void reply.headers(HEADERS));
  await app.register(fastifyStatic, {
    root: DIRECTORY,
    serve: false,
    preCompressed: true,
    cacheControl: false,
  });
  app.get('/', hidden, async (_request, reply) => reply.redirect(DASHBOARD));
  // Names of assets carry a digest of their contents.
  app.get<{ Params: { name: string } }>(`${DASHBOARD}/assets/:name`, hidden, async ({ params }, reply) => {
    reply.header('cache-control', 'public, max-age=31536000, immutable');
    return reply.sendFile(params.name, join(DIRECTORY, 'assets'));
  });
  app.get(`${DASHBOARD}/icon.svg`, hidden, async (_request, reply) => {
    reply.header('cache-control', 'no-cache');
    return reply.sendFile('icon.svg');
  });
  for (const url of [DASHBOARD, `${DASHBOARD}/*`]) {
    app.get(url, hidden, async (_request, reply) => {
      if (!existsSync(join(DIRECTORY, 'index.html')))
        throw new InstaVMError('template_missing', 'the dashboard has not been built');
      reply.header('cache-control', 'no-cache');
      return reply.sendFile('index.html');
    });
  }
};

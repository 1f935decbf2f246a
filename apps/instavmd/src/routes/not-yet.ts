/**
 * Routes of the contract that this version does not offer. Lists answer empty in the contract's own envelope, so that clients which
 * scan them go on; everything else is a 403 whose text every client shows (contract §2.2, §20).
 */
import { InstaVMError } from '@instavm/wire';
import type { FastifyPluginAsync } from 'fastify';
import { PUBLIC, READ } from '../auth.ts';

const EMPTY_LISTS: Readonly<Record<string, unknown>> = {
  '/v1/browser/sessions/': { sessions: [] },
  '/v1/recordings': [],
  '/v1/ssh-keys': { keys: [] },
  '/v1/tapes': [],
  '/v1/templates': { templates: [] },
  '/v1/vaults': { vaults: [] },
  '/v1/vaults/catalog': { templates: [] },
  '/v1/vms/:vm/volumes': [],
  '/v1/volumes': [],
  '/v1/webhooks/deliveries': { items: [], next_cursor: null },
  '/v1/webhooks/endpoints': [],
};

/** Read by clients that have no key yet (contract §2). */
const PUBLIC_LISTS = new Set(['/v1/templates']);
/** To be refused a key would send them to log in, which helps nobody. */
const PUBLIC_REFUSALS = new Set(['/v1/templates/*']);

const UNAVAILABLE: readonly string[] = [
  '/v1/browser/*',
  '/v1/computeruse/*',
  '/v1/recordings/*',
  '/v1/sessions/:sid/tape/start',
  '/v1/ssh-keys/*',
  '/v1/tapes/*',
  '/v1/templates/*',
  '/v1/vaults/*',
  '/v1/vms/:vm/volumes/*',
  '/v1/volumes/*',
  '/v1/webhooks/*',
];

const METHODS = ['DELETE', 'GET', 'HEAD', 'OPTIONS', 'PATCH', 'POST', 'PUT'] as const;

export const notYetRoutes: FastifyPluginAsync = async (app) => {
  // Whatever is sent, forms and files included, the answer is the same, and at once: Node reads the rest away.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, _payload, done) => done(null, undefined));
  const refuse = async (): Promise<never> => {
    throw new InstaVMError('not_available', 'not available on this server');
  };
  const hide = { hide: true };
  for (const [url, body] of Object.entries(EMPTY_LISTS)) {
    app.get(url, { schema: hide, ...(PUBLIC_LISTS.has(url) ? PUBLIC : READ) }, async () => body);
    app.route({
      method: METHODS.filter((method) => method !== 'GET' && method !== 'HEAD'),
      url,
      schema: hide,
      ...READ,
      handler: refuse,
    });
  }
  for (const url of UNAVAILABLE) {
    app.route({
      method: [...METHODS],
      url,
      schema: hide,
      ...(PUBLIC_REFUSALS.has(url) ? PUBLIC : READ),
      handler: refuse,
    });
  }
};

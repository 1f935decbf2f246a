/** Every route says who may use it. */
import type { ApiKeys } from '@instavm/store';
import { pino } from 'pino';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { buildApp, type Services } from '../src/app.ts';
import { KeyConnections } from '../src/key-connections.ts';
import { Metrics } from '../src/operations/metrics.ts';
import { noLimits } from './no-limits.ts';

/** Anyone may ask these, and they are few. */
const PUBLIC = [
  '/',
  // For pages of ours, which ask who is there before anyone is (`requireOwnPage`).
  '/api/auth/link',
  '/api/auth/password',
  '/api/auth/session',
  '/api/auth/sign-in',
  '/api/auth/sign-out',
  '/api/auth/sign-up',
  '/api/cli-auth/exchange',
  '/api/cli-auth/start',
  '/dashboard',
  '/dashboard/*',
  '/dashboard/assets/:name',
  '/dashboard/icon.svg',
  '/docs',
  '/docs/',
  '/docs/*',
  '/healthz',
  // With a token of its own, which the route asks for itself.
  '/metrics',
  '/openapi.json',
  '/readyz',
  // The contract has its key in the body; the route asks for it itself.
  '/v1/sessions/session',
  '/v1/templates',
  '/v1/templates/*',
];

let app: Awaited<ReturnType<typeof buildApp>>;
beforeAll(async () => {
  const account = { id: 'acct_a', email: 'a@b', isAdministrator: true };
  const key = { id: 1, scope: 'full', expiresAt: null, secretEndsAt: null, sandboxMetadata: null };
  const keys = { authenticate: async () => ({ account, key }) } as unknown as ApiKeys;
  const audit = { refused: () => {} };
  app = await buildApp(
    {
      keys,
      keyConnections: new KeyConnections(),
      people: {},
      operations: { metrics: new Metrics() },
      rateLimits: noLimits(),
      audit,
    } as unknown as Services,
    pino({ level: 'silent' }),
  );
  app.get('/undeclared', async () => 'secret');
  await app.ready();
});
afterAll(() => app.close());

it('has routes that each take a scope, or are among the few that are public', () => {
  const open = app.declared.filter(
    ({ url, isPublic, scope }) => url !== '/undeclared' && !isPublic && scope === undefined,
  );
  expect(open).toEqual([]);
  const publicUrls = app.declared.filter(({ isPublic }) => isPublic).map(({ url }) => url);
  expect([...new Set(publicUrls)].sort()).toEqual([...PUBLIC].sort());
});

it('opens a route that says nothing to nobody', async () => {
  const answer = await app.inject({ url: '/undeclared', headers: { 'x-api-key': 'any' } });
  expect([answer.statusCode, answer.json().code]).toEqual([403, 'permission_denied']);
});

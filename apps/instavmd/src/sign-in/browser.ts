/** The caller of a request that may come from a browser: its session stands for all that its account may do. */
import { InstaVMError } from '@instavm/wire';
import type { FastifyRequest } from 'fastify';
import { recognize } from '../acting.ts';
import type { Services } from '../app.ts';
import { authenticate, type Caller } from '../auth.ts';
import { requireOwnPage } from './same-origin.ts';

type Asked = Pick<Services, 'keys' | 'people' | 'rateLimits' | 'audit'>;

/**
 * A key that is sent is what counts, valid or not.
 * @throws unauthenticated; rate_limited; cross_origin for a browser on a page of someone else
 */
export async function callerOfRequest(services: Asked, request: FastifyRequest): Promise<Caller> {
  const { people, rateLimits } = services;
  const key = request.headers['x-api-key'];
  if (key !== undefined || request.headers.cookie === undefined) return authenticate(services, key, request.ip);
  requireOwnPage(request.headers, people.publicUrl);
  const found = await people.signIns.find(browserHeaders(request), false);
  if (found === undefined) throw new InstaVMError('unauthenticated', 'nobody is signed in, or no longer');
  const { account, id: signInId, expiresAt } = found;
  const none = { keyId: null, keyPrefix: null, secretEndsAt: null, sandboxMetadata: null };
  const caller: Caller = { account, signInId, expiresAt, scope: 'full', ...none };
  recognize(caller);
  await rateLimits.request(account.id);
  return caller;
}

/** What says which browser it is, and nothing else. */
export function browserHeaders({ headers }: FastifyRequest): Headers {
  return new Headers({ cookie: headers.cookie ?? '', 'user-agent': headers['user-agent'] ?? '' });
}

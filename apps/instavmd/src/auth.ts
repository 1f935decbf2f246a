/** Who asks: by an API key in a header (in the body of one route of the contract), or as a browser that is signed in. */
import type { Account, Accounts } from '@instavm/store';
import { InstaVMError } from '@instavm/wire';
import type { FastifyRequest } from 'fastify';
import type { Services } from './app.ts';
import { requireOwnPage } from './sign-in/same-origin.ts';

/** @throws unauthenticated, the same for a missing, malformed, unknown and revoked key */
export async function authenticate(accounts: Accounts, key: string | string[] | undefined): Promise<Account> {
  const account = await accountOf(accounts, key);
  if (account === undefined) throw new InstaVMError('unauthenticated', 'the API key is missing or not valid');
  return account;
}

/** @returns undefined where `authenticate` throws */
export async function accountOf(accounts: Accounts, key: string | string[] | undefined): Promise<Account | undefined> {
  return typeof key === 'string' && key.length > 0 && key.length < 256 ? accounts.findByKey(key) : undefined;
}

/** A key that is sent is what counts, valid or not. @throws unauthenticated; cross_origin for a browser on a page of someone else */
export async function callerOf({ accounts, people }: Services, request: FastifyRequest): Promise<Account> {
  const key = request.headers['x-api-key'];
  if (key !== undefined || request.headers.cookie === undefined) return authenticate(accounts, key);
  requireOwnPage(request.headers, people.publicUrl);
  const found = await people.signIns.find(browserHeaders(request), false);
  if (found === undefined) throw new InstaVMError('unauthenticated', 'nobody is signed in, or no longer');
  return found.account;
}

/** What says which browser it is, and nothing else. */
export function browserHeaders({ headers }: FastifyRequest): Headers {
  return new Headers({ cookie: headers.cookie ?? '', 'user-agent': headers['user-agent'] ?? '' });
}

/**
 * Who asks, and what they may: API keys from a header (and from the body of the one route of the contract that puts it there), their
 * scopes, and the sandboxes that a restricted key is for. (Browsers that are signed in: `sign-in/browser.ts`.) A route says what it needs;
 * one that says nothing is open to nobody.
 */
import type { AccountId } from '@instavm/core';
import type { Account, ApiKeys } from '@instavm/store';
import { InstaVMError, KEY_SCOPES, type KeyScope } from '@instavm/wire';
import { recognize } from './acting.ts';
import type { Services } from './app.ts';
import { earlier } from './key-connections.ts';

export type Caller = {
  readonly account: Account;
  readonly scope: KeyScope;
  /** Null for who is not here by a key. */
  readonly keyId: number | null;
  /** How that key begins. */
  readonly keyPrefix: string | null;
  /** Null for who is not here by a browser that is signed in. */
  readonly signInId: string | null;
  /** When the key or the sign-in does. */
  readonly expiresAt: Date | null;
  /** Of a secret that was replaced, and works for a grace. */
  readonly secretEndsAt: Date | null;
  /** Entries that a sandbox must have in its metadata to be there for this caller; null: all are. */
  readonly sandboxMetadata: Readonly<Record<string, unknown>> | null;
};

/** What a route needs, for its `config`. */
type Needed = { readonly config: { readonly scope?: KeyScope; readonly isPublic?: true } };
export const READ: Needed = { config: { scope: 'read' } };
export const RUN: Needed = { config: { scope: 'run' } };
export const FULL: Needed = { config: { scope: 'full' } };
export const PUBLIC: Needed = { config: { isPublic: true } };

/**
 * @param address where it came from
 * @throws unauthenticated, the same for a missing, malformed, unknown, expired and revoked key; rate_limited
 */
export async function authenticate(
  { keys, rateLimits, audit }: Pick<Services, 'keys' | 'rateLimits' | 'audit'>,
  secret: string | string[] | undefined,
  address: string,
): Promise<Caller> {
  const caller = await callerOf(keys, secret);
  if (caller === undefined) {
    await rateLimits.failure(address);
    if (typeof secret === 'string') audit.keyRefused(secret, address);
    throw new InstaVMError('unauthenticated', 'the API key is missing or not valid');
  }
  recognize(caller);
  await rateLimits.request(caller.account.id);
  return caller;
}

/** @returns undefined where `authenticate` throws */
export async function callerOf(keys: ApiKeys, secret: string | string[] | undefined): Promise<Caller | undefined> {
  const isKey = typeof secret === 'string' && secret.length > 0 && secret.length < 256;
  const found = isKey ? await keys.authenticate(secret) : undefined;
  if (found === undefined) return undefined;
  const { id: keyId, prefix: keyPrefix, scope, expiresAt, sandboxMetadata } = found.key;
  const { account, secretEndsAt } = found;
  return { account, keyId, keyPrefix, signInId: null, scope, expiresAt, secretEndsAt, sandboxMetadata };
}

/** @param needed undefined for a route that does not say. @throws permission_denied */
export function requireScope({ scope }: Caller, needed: KeyScope | undefined): void {
  if (needed === undefined) throw new InstaVMError('permission_denied', 'this route is open to nobody');
  if (KEY_SCOPES.indexOf(scope) >= KEY_SCOPES.indexOf(needed)) return;
  throw new InstaVMError('permission_denied', `this takes a key with the scope ${needed}, and yours has ${scope}`, {
    details: { needed, scope },
  });
}

/** @throws permission_denied */
export function requireAdministrator({ account }: Caller): void {
  if (!account.isAdministrator) throw new InstaVMError('permission_denied', 'only the administrator may do this');
}

/** For what tells of all sandboxes of the account. @throws permission_denied */
export function requireAllSandboxes({ sandboxMetadata }: Caller): void {
  if (sandboxMetadata !== null)
    throw new InstaVMError('permission_denied', 'this key is for some sandboxes only, and this is about all of them');
}

/** When the key of a caller ends; null: it does not, or the caller is a person, whose sign-in ends only for want of use. */
export function keyEndOf({ keyId, expiresAt, secretEndsAt }: Caller): Date | null {
  return keyId === null ? null : earlier(expiresAt, secretEndsAt);
}

/** Of a key or a sign-in that the caller would come to have: a key that ends must not give itself a right that lasts. @throws permission_denied */
export function requireNoLonger(caller: Caller, ends: Date | null): void {
  const own = keyEndOf(caller);
  if (own === null || (ends !== null && ends <= own)) return;
  throw new InstaVMError('permission_denied', `this key works until ${own.toISOString()}, and gives nobody longer`);
}

type Owned = { readonly accountId: AccountId };

/** Whether something of an account, described by metadata, is there for a caller. */
export const isFor = (caller: Caller, { accountId }: Owned, metadata: Readonly<Record<string, unknown>>): boolean =>
  accountId === caller.account.id && matches(metadata, caller.sandboxMetadata);

/** Of what a restricted caller makes: with what is missing. @throws permission_denied for what it could not see afterwards */
export function ownMetadata<T extends Readonly<Record<string, unknown>>>(
  { sandboxMetadata }: Caller,
  wanted: T,
): Record<string, unknown> {
  const metadata = { ...sandboxMetadata, ...wanted };
  if (matches(metadata, sandboxMetadata)) return metadata;
  throw new InstaVMError('permission_denied', 'this key is only for sandboxes with other metadata', {
    details: { sandbox_metadata: sandboxMetadata },
  });
}

/** Whether metadata has all entries that are wanted. */
function matches(
  metadata: Readonly<Record<string, unknown>>,
  wanted: Readonly<Record<string, unknown>> | null | undefined,
): boolean {
  const has = ([key, value]: [string, unknown]): boolean =>
    Object.hasOwn(metadata, key) && JSON.stringify(metadata[key]) === JSON.stringify(value);
  return Object.entries(wanted ?? {}).every(has);
}

/**
 * The authentication library, told where our tables are, and that its user is our account. It owns passwords, sessions and
 * single-use values; who may sign up, what a browser's request must look like, and every answer are for its neighbours.
 *
 * Its HTTP routes are not served: they are called as functions, with the headers that they need and no others.
 */
import { AsyncLocalStorage } from 'node:async_hooks';
import { createHash } from 'node:crypto';
import { kyselyAdapter } from '@better-auth/kysely-adapter';
import { newAccountId } from '@instavm/core';
import type { Database } from '@instavm/store';
import { APIError, createAuthEndpoint } from 'better-auth/api';
import { setSessionCookie } from 'better-auth/cookies';
import { hashPassword } from 'better-auth/crypto';
import { betterAuth } from 'better-auth/minimal';
import { z } from 'zod';

export type LibraryOptions = {
  readonly database: Database;
  /** Signs cookies. */
  readonly secret: string;
  /** Where people reach this server; undefined: at this machine, without TLS. */
  readonly publicUrl: URL | undefined;
};

export type Library = ReturnType<typeof createLibrary>;

const SIGNED_IN_SECONDS = 7 * 24 * 3600;
/** The cookie is renewed at most so often. */
const RENEWED_AFTER_SECONDS = 24 * 3600;
export const PASSWORD_LENGTH = { least: 10, most: 128 };

/**
 * Browsers keep cookies by host, whatever the port, and a machine may have several daemons: each has a name of its own, which stays with its data.
 * @param secure adds Secure, and the prefix with which a browser lets no other host, no subdomain and no plain-text page set it (RFC 6265bis §4.1.3.2)
 */
function cookieName(secret: string, secure: boolean): string {
  const own = createHash('sha256').update(`cookie name: ${secret}`).digest('hex').slice(0, 8);
  return `${secure ? '__Host-' : ''}instavm-${own}`;
}

/** What a verification of ours is found by: the value that the holder shows is kept nowhere. */
export const verificationIdentifier = (kind: 'link' | 'invitation', token: string): string =>
  `${kind}:${createHash('sha256').update(token).digest('hex')}`;

/** Of a password that was hashed before the library asks for it. */
const hashed = new AsyncLocalStorage<string>();

/** Signs up: the library itself hashes within a transaction, and all that asks the database meanwhile would wait for that. */
export const withHashed = async <T>(password: string, signUp: () => Promise<T>): Promise<T> =>
  hashed.run(await hashPassword(password), signUp);

export function createLibrary({ database, secret, publicUrl }: LibraryOptions) {
  const secure = publicUrl?.protocol === 'https:';
  return betterAuth({
    appName: 'InstaVM',
    baseURL: publicUrl?.origin ?? 'http://localhost',
    secret,
    database: kyselyAdapter(database, { type: 'sqlite', transaction: true }),
    telemetry: { enabled: false },
    logger: { disabled: true },
    // Its own would count requests of its routes, which nobody can reach.
    rateLimit: { enabled: false },
    emailAndPassword: {
      enabled: true,
      minPasswordLength: PASSWORD_LENGTH.least,
      maxPasswordLength: PASSWORD_LENGTH.most,
      password: { hash: async (password) => hashed.getStore() ?? hashPassword(password) },
    },
    user: {
      modelName: 'accounts',
      fields: { createdAt: 'created_at', updatedAt: 'updated_at', emailVerified: 'email_verified' },
    },
    session: {
      modelName: 'sign_ins',
      expiresIn: SIGNED_IN_SECONDS,
      updateAge: RENEWED_AFTER_SECONDS,
      fields: {
        userId: 'account_id',
        expiresAt: 'expires_at',
        createdAt: 'created_at',
        updatedAt: 'updated_at',
        ipAddress: 'ip_address',
        userAgent: 'user_agent',
      },
    },
    account: {
      modelName: 'credentials',
      fields: {
        userId: 'account_id',
        accountId: 'provider_account_id',
        providerId: 'provider_id',
        accessToken: 'access_token',
        refreshToken: 'refresh_token',
        idToken: 'id_token',
        accessTokenExpiresAt: 'access_token_expires_at',
        refreshTokenExpiresAt: 'refresh_token_expires_at',
        createdAt: 'created_at',
        updatedAt: 'updated_at',
      },
    },
    verification: {
      modelName: 'verifications',
      fields: { expiresAt: 'expires_at', createdAt: 'created_at', updatedAt: 'updated_at' },
    },
    advanced: {
      database: { generateId: ({ model }) => (model === 'user' ? newAccountId() : crypto.randomUUID()) },
      // The name has its own prefix.
      useSecureCookies: false,
      cookies: { session_token: { name: cookieName(secret, secure) } },
      defaultCookieAttributes: { httpOnly: true, sameSite: 'strict', secure, path: '/' },
      ipAddress: { disableIpTracking: true },
    },
    plugins: [oneTimeLinks],
  });
}

/** Signing in by a link that works once. */
const oneTimeLinks = {
  id: 'one-time-links',
  endpoints: {
    signInByLink: createAuthEndpoint(
      '/sign-in/link',
      { method: 'POST', body: z.object({ token: z.string() }) },
      async (context) => {
        const { internalAdapter } = context.context;
        const link = await internalAdapter.consumeVerificationValue(verificationIdentifier('link', context.body.token));
        const user = link && (await internalAdapter.findUserById(link.value));
        if (!user) throw new APIError('UNAUTHORIZED');
        const session = await internalAdapter.createSession(user.id);
        await setSessionCookie(context, { session, user });
        return context.json({ accountId: user.id });
      },
    ),
  },
} as const;

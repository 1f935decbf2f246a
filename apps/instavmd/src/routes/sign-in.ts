/** Signing up, in and out of the dashboard, links and invitations. Every answer that signs in carries a new session: none is adopted. */
import { isIPv6 } from 'node:net';
import type { Account } from '@instavm/store';
import {
  type AuditType,
  ChangePasswordRequest,
  Done,
  InstaVMError,
  InvitationRequest,
  LinkSignInRequest,
  OneTimeLink,
  SignedIn as SignedInAnswer,
  SignInRequest,
  SignInState,
  SignUpRequest,
} from '@instavm/wire';
import type { FastifyPluginAsync, FastifyReply, FastifyRequest } from 'fastify';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { recognize } from '../acting.ts';
import type { Services } from '../app.ts';
import type { Audit } from '../audit.ts';
import { FULL, PUBLIC, requireAdministrator, requireNoLonger } from '../auth.ts';
import { signInRight } from '../key-connections.ts';
import { browserHeaders } from '../sign-in/browser.ts';
import { ownOrigin, requireOwnPage } from '../sign-in/same-origin.ts';
import type { SignedIn } from '../sign-in/sign-ins.ts';
import { DASHBOARD } from './dashboard.ts';

const INVITED_SECONDS = 7 * 86_400;

export const signInRoutes =
  (services: Services): FastifyPluginAsync =>
  async (app) => {
    await app.register(browserRoutes(services));
    await app.register(linkRoutes(services));
  };

/** For our own pages, before anyone is signed in. */
const browserRoutes =
  ({ people, accounts, audit, keyConnections, ptyTokens }: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const { signIns, signUpMode, attempts, publicUrl } = people;
    /** What is open in a browser goes with the sign-in that opened it. */
    const cut = (id: string): void => {
      ptyTokens.forget(signInRight(id));
      keyConnections.revoke(signInRight(id));
    };
    /** @returns who it was, and the cookies that end it */
    const signOut = async (request: FastifyRequest) => {
      const headers = browserHeaders(request);
      const found = await signIns.find(headers, false);
      const cookies = await signIns.signOut(headers);
      if (found !== undefined) cut(found.id);
      return { found, cookies };
    };
    const entered = async (
      reply: FastifyReply,
      { account, cookies }: SignedIn,
      type: 'auth.signed_in' | 'auth.signed_up',
      method: Method,
    ) => {
      recognize({ account, keyId: null, keyPrefix: null });
      await tell(audit, account, type, { method });
      reply.header('set-cookie', cookies);
      return { account: accountView(account) };
    };
    /** A refusal is told, and stays one. */
    const attempted = async <T>(method: Method, email: string | undefined, attempt: () => Promise<T>): Promise<T> => {
      try {
        return await attempt();
      } catch (error) {
        if (error instanceof InstaVMError && error.code === 'sign_in_failed') {
          const account = email === undefined ? undefined : await accounts.findByEmail(email);
          audit.signInFailed(account?.id, { method, is_account: account !== undefined });
        }
        throw error;
      }
    };
    app.addHook('onRequest', async ({ headers }) => requireOwnPage(headers, publicUrl));
    const { config } = PUBLIC;
    const signedIn = { config, schema: { response: { 200: SignedInAnswer } } };

    app.get('/api/auth/session', { config, schema: { response: { 200: SignInState } } }, async (request, reply) => {
      const found = await signIns.find(browserHeaders(request), true);
      if (found !== undefined) keyConnections.endAt(signInRight(found.id), found.expiresAt);
      reply.header('set-cookie', found?.cookies ?? []);
      return { account: found ? accountView(found.account) : null, sign_up: signUpMode };
    });

    app.post(
      '/api/auth/sign-up',
      { ...signedIn, schema: { ...signedIn.schema, body: SignUpRequest } },
      async (request, reply) => {
        const { invitation, ...wanted } = request.body;
        if (signUpMode === 'closed') throw new InstaVMError('sign_up_closed', 'nobody can sign up on this server');
        await attempts.knock(request.ip);
        const headers = strangerHeaders(request);
        const signUp = async () => {
          if (signUpMode === 'open') {
            await attempts.signUp(request.ip);
            return signIns.signUp(wanted, headers);
          }
          // An invitation is a limit of its own.
          if (invitation !== undefined) return signIns.signUpInvited(invitation, wanted, headers);
          throw new InstaVMError('invitation_invalid', 'this server asks for an invitation');
        };
        return entered(reply, await signUp(), 'auth.signed_up', 'password');
      },
    );

    app.post(
      '/api/auth/sign-in',
      { ...signedIn, schema: { ...signedIn.schema, body: SignInRequest } },
      async (request, reply) => {
        const { email, password } = request.body;
        await attempts.guess(request.ip, email);
        const signedIn = await attempted('password', email, () =>
          signIns.signIn(email, password, strangerHeaders(request)),
        );
        await attempts.forgive(request.ip, email);
        await signOut(request);
        return entered(reply, signedIn, 'auth.signed_in', 'password');
      },
    );

    app.post(
      '/api/auth/link',
      { ...signedIn, schema: { ...signedIn.schema, body: LinkSignInRequest } },
      async (request, reply) => {
        await attempts.knock(request.ip);
        const signedIn = await attempted('link', undefined, () =>
          signIns.signInByLink(request.body.token, strangerHeaders(request)),
        );
        await signOut(request);
        return entered(reply, signedIn, 'auth.signed_in', 'link');
      },
    );

    app.post('/api/auth/sign-out', { config, schema: { response: { 200: Done } } }, async (request, reply) => {
      const { found, cookies } = await signOut(request);
      reply.header('set-cookie', cookies);
      if (found !== undefined) {
        recognize({ account: found.account, keyId: null, keyPrefix: null });
        await tell(audit, found.account, 'auth.signed_out');
      }
      return { success: true as const };
    });

    const changed = { body: ChangePasswordRequest, response: { 200: Done } };
    app.post('/api/auth/password', { config, schema: changed }, async (request, reply) => {
      const headers = browserHeaders(request);
      const found = await signIns.find(headers, false);
      if (found === undefined) throw new InstaVMError('unauthenticated', 'nobody is signed in');
      await attempts.guess(request.ip, found.account.email);
      const { account } = found;
      recognize({ account, keyId: null, keyPrefix: null });
      const before = await signIns.idsOf(account.id);
      const cookies = await attempted('password', account.email, () =>
        signIns.changePassword(request.body.present, request.body.next, headers),
      );
      for (const id of before) cut(id);
      await tell(audit, account, 'auth.password_changed');
      reply.header('set-cookie', cookies);
      return { success: true as const };
    });
  };

const linkRoutes =
  ({ people: { signIns, signUpMode, publicUrl }, audit }: Services): FastifyPluginAsyncZod =>
  async (app) => {
    /** Where the one who asks finds the dashboard. */
    const dashboardUrl = ({ headers }: FastifyRequest, path: string, fields: Record<string, string>): string => {
      const origin = publicUrl?.origin ?? ownOrigin(headers, undefined);
      if (origin === undefined) throw new InstaVMError('cross_origin', 'the server is not known under this host name');
      // Behind "#": neither logs nor other servers ever see it.
      return `${origin}${DASHBOARD}${path}#${new URLSearchParams(fields)}`;
    };

    const linked = { summary: 'A link that signs the administrator in, once', response: { 201: OneTimeLink } };
    app.post('/api/auth/links', { ...FULL, schema: linked }, async (request, reply) => {
      requireAdministrator(request.caller);
      if (!isFromThisMachine(request))
        throw new InstaVMError('permission_denied', 'links that sign in are made on the machine of the daemon');
      requireNoLonger(request.caller, null);
      const { token, expiresAt } = await signIns.createLink(request.caller.account.id);
      await tell(audit, request.caller.account, 'auth.link_created', { expires_at: expiresAt.toISOString() });
      const url = dashboardUrl(request, '/sign-in', { link: token });
      return reply.code(201).send({ url, expires_at: expiresAt.toISOString() });
    });

    const invited = {
      summary: 'An invitation to make an account, once',
      body: InvitationRequest.nullish(),
      response: { 201: OneTimeLink },
    };
    app.post('/api/auth/invitations', { ...FULL, schema: invited }, async (request, reply) => {
      requireAdministrator(request.caller);
      if (signUpMode === 'closed')
        throw new InstaVMError('sign_up_closed', 'nobody can sign up on this server', {
          hint: 'Start the daemon with INSTAVM_SIGN_UP=invitation.',
        });

      const { token, expiresAt } = await signIns.createInvitation(
        request.caller.account.id,
        (request.body?.ttl_seconds ?? INVITED_SECONDS) * 1000,
      );
      await tell(audit, request.caller.account, 'account.invited', { expires_at: expiresAt.toISOString() });
      const url = dashboardUrl(request, '/sign-up', { invitation: token });
      return reply.code(201).send({ url, expires_at: expiresAt.toISOString() });
    });
  };

type Method = 'password' | 'link';

const tell = (audit: Audit, { id }: Account, type: AuditType, details = {}): Promise<void> =>
  audit.tell({ accountId: id, type, status: 'success', resource: { type: 'account', id }, details });

const accountView = ({ id, email, name, isAdministrator }: Account) => ({
  ...{ id, email, name },
  is_administrator: isAdministrator,
});

/** Without cookies: whoever was signed in before has no part in who is now. */
function strangerHeaders({ headers }: FastifyRequest): Headers {
  return new Headers({ 'user-agent': headers['user-agent'] ?? '' });
}

/** A proxy on this machine says for whom it asks (RFC 7239 and what preceded it). */
function isFromThisMachine({ ip, headers }: FastifyRequest): boolean {
  if (headers.forwarded !== undefined || headers['x-forwarded-for'] !== undefined) return false;
  return isIPv6(ip) ? ip === '::1' || ip.startsWith('::ffff:127.') : ip.startsWith('127.');
}

/** Login of command lines (contract §12.1): the program starts it, a signed-in person answers it in the browser, the program gets a key. */
import {
  CliAuthAnswer,
  CliAuthExchange,
  CliAuthKey,
  CliAuthRedirect,
  CliAuthStart,
  CliAuthStarted,
  CliPairing,
  InstaVMError,
  plain,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { recognize } from '../acting.ts';
import type { Services } from '../app.ts';
import { FULL, PUBLIC, requireNoLonger } from '../auth.ts';
import { ownOrigin } from '../sign-in/same-origin.ts';
import { DASHBOARD } from './dashboard.ts';

const MAX_KEY_NAME_LENGTH = 100;

export const cliAuthRoutes =
  ({ accounts, keys, audit, people: { pairings, attempts, publicUrl } }: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const started = { body: CliAuthStart, response: { 200: CliAuthStarted } };
    app.post('/api/cli-auth/start', { ...PUBLIC, schema: started }, async (request) => {
      await attempts.knock(request.ip);
      const origin = publicUrl?.origin ?? ownOrigin(request.headers, undefined);
      if (origin === undefined) throw new InstaVMError('cross_origin', 'the server is not known under this host name');
      const { state, code_challenge: codeChallenge, redirect_uri: redirectUri, hostname, cli_version } = request.body;
      // Whatever the program says is shown to a person who has to decide, and becomes the name of a key.
      const about = { hostname: plain(hostname ?? '') || 'unknown host', cliVersion: plain(cli_version ?? '') || null };
      const { id } = pairings.start({ state, codeChallenge, redirectUri, ...about });
      return { pairing_id: id, login_url: `${origin}${DASHBOARD}/cli-login?pairing=${id}` };
    });

    const exchanged = { body: CliAuthExchange, response: { 200: CliAuthKey } };
    app.post('/api/cli-auth/exchange', { ...PUBLIC, schema: exchanged }, async ({ body, ip }, reply) => {
      await attempts.knock(ip);
      const { accountId, hostname } = pairings.exchange(body.pairing_id, body.code, body.code_verifier);
      const account = await accounts.find(accountId);
      if (account === undefined) throw new InstaVMError('sign_in_failed', 'the account is gone');
      const name = `CLI - ${hostname}`.slice(0, MAX_KEY_NAME_LENGTH);
      recognize({ account, keyId: null, keyPrefix: null });
      const { secret } = await keys.create(accountId, { name });
      reply.header('cache-control', 'no-store');
      return { api_key: secret, user: { email: account.email } };
    });

    const Params = z.object({ id: z.string() });
    const shown = { params: Params, response: { 200: CliPairing } };
    app.get('/api/cli-auth/pairings/:id', { ...FULL, schema: shown }, async (request) => {
      const { hostname, cliVersion, expiresAt } = pairings.waiting(request.params.id);
      return { hostname, cli_version: cliVersion, expires_at: expiresAt.toISOString() };
    });

    const answered = { params: Params, body: CliAuthAnswer, response: { 200: CliAuthRedirect } };
    app.post('/api/cli-auth/pairings/:id', { ...FULL, schema: answered }, async ({ caller, params, body }) => {
      const { id: accountId } = caller.account;
      const { hostname } = pairings.waiting(params.id);
      // The key that comes of it has no end.
      requireNoLonger(caller, null);
      const redirect_url = body.approve ? pairings.approve(params.id, accountId) : pairings.refuse(params.id);
      const type = body.approve ? 'auth.cli_approved' : 'auth.cli_refused';
      await audit.tell({ accountId, type, status: 'success', details: { hostname } });
      return { redirect_url };
    });
  };

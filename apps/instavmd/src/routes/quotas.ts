/** What an account may have and ask for; the administrator sets it. Ours. */
import type { AccountId } from '@instavm/core';
import { AccountQuotas, SetQuotasRequest } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { FULL, READ, requireAdministrator } from '../auth.ts';
import { accountNamed } from './views.ts';

const response = { 200: AccountQuotas };

export const quotaRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const { quotas, sandboxes } = services;
    const view = async (accountId: AccountId): Promise<z.infer<typeof AccountQuotas>> => {
      const { memoryMib, storedMib, ...used } = await sandboxes.usedBy(accountId);
      return {
        account_id: accountId,
        quotas: { ...(await quotas.valuesOf(accountId)) },
        used: { ...used, memory_mib: memoryMib, stored_mib: Math.ceil(storedMib) },
      };
    };
    const own = { summary: 'What your account may have and ask for, and what it has', response };
    app.get('/v2/quotas', { ...READ, schema: own }, async ({ caller }) => view(caller.account.id));

    const set = {
      summary: 'Change what an account may have and ask for; for the administrator',
      params: z.object({ account: z.string() }),
      body: SetQuotasRequest,
      response,
    };
    app.patch('/v2/accounts/:account/quotas', { ...FULL, schema: set }, async ({ caller, params, body, log }) => {
      requireAdministrator(caller);
      const account = await accountNamed(services, params.account);
      await quotas.set(account.id, body);
      log.info({ accountId: account.id, changes: body, by: caller.account.id }, 'quotas changed');
      return view(account.id);
    });
  };

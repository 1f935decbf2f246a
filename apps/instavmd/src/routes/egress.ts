/**
 * Egress policies of the contract (§10.1). They are kept with the sandbox and answered; until the egress gateway exists a
 * sandbox has no way out at all, so every policy is held by more than it asks.
 */
import type { EgressPolicy, SandboxOwner } from '@instavm/core';
import { EgressPolicyBody, EgressPolicyResponse } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import type { Guest } from '../guest/guest.ts';
import { egressFromBody } from './create.ts';
import { ownerOf, ownerOfVm } from './views.ts';

const response = { 200: EgressPolicyResponse };
const NOTHING: EgressPolicy = {
  allowHttp: false,
  allowHttps: false,
  allowPublicRepos: false,
  allowedDomains: [],
  allowedCidrs: [],
};

export const egressRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const bySession = { params: z.object({ sid: z.string() }), response };
    app.get('/v1/egress/session/:sid', { schema: bySession }, async ({ account, params }) =>
      view(await ownerOf(services, account.id, params.sid)),
    );
    app.post(
      '/v1/egress/session/:sid',
      { schema: { ...bySession, body: EgressPolicyBody } },
      async ({ account, params, body }) => {
        const owner = await ownerOf(services, account.id, params.sid);
        await owner.remember({ egress: egressFromBody(body) });
        return view(owner);
      },
    );
    const byVm = { params: z.object({ vm: z.string() }), response };
    app.get('/v1/egress/vm/:vm', { schema: byVm }, async ({ account, params }) =>
      view(await ownerOfVm(services, account.id, params.vm)),
    );
    app.post(
      '/v1/egress/vm/:vm',
      { schema: { ...byVm, body: EgressPolicyBody } },
      async ({ account, params, body }) => {
        const owner = await ownerOfVm(services, account.id, params.vm);
        await owner.remember({ egress: egressFromBody(body) });
        return view(owner);
      },
    );
  };

function view(owner: SandboxOwner<Guest>) {
  const policy = owner.record.egress ?? NOTHING;
  return {
    status: 'ok',
    allow_http: policy.allowHttp,
    allow_https: policy.allowHttps,
    allow_public_repos: policy.allowPublicRepos,
    allowed_domains: [...policy.allowedDomains],
    allowed_cidrs: [...policy.allowedCidrs],
  };
}

/** Outbound access of sandboxes: the policy, in the contract's words (§10.1) and in ours, and what it would say about a destination. */
import type { EgressPolicy, SandboxOwner } from '@instavm/core';
import {
  EgressPolicyBody,
  EgressPolicyResponse,
  EgressTestRequest,
  EgressTestResponse,
  SandboxEgressPolicy,
  SandboxEgressResponse,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { READ, RUN } from '../auth.ts';
import type { Guest } from '../guest/guest.ts';
import { egressFromBody } from './create.ts';
import { ownerOf, ownerOfVm } from './views.ts';

type Owner = SandboxOwner<Guest>;

export const egressRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const effective = ({ record }: Owner): EgressPolicy => record.egress ?? services.egress.defaultPolicy;
    const change = async (owner: Owner, body: EgressPolicyBody): Promise<Owner> => {
      await owner.remember(() => ({ egress: egressFromBody(services.egress, body) }));
      return owner;
    };
    const contractView = (owner: Owner) => ({ status: 'ok', ...policyView(effective(owner)) });
    const ownView = (owner: Owner) => ({ ...policyView(effective(owner)), is_default: owner.record.egress === null });

    const response = { 200: EgressPolicyResponse };
    const bySession = { params: z.object({ sid: z.string() }), response };
    app.get('/v1/egress/session/:sid', { ...READ, schema: bySession }, async ({ caller, params }) =>
      contractView(await ownerOf(services, caller, params.sid)),
    );
    app.post(
      '/v1/egress/session/:sid',
      { ...RUN, schema: { ...bySession, body: EgressPolicyBody } },
      async ({ caller, params, body }) => contractView(await change(await ownerOf(services, caller, params.sid), body)),
    );
    const byVm = { params: z.object({ vm: z.string() }), response };
    app.get('/v1/egress/vm/:vm', { ...READ, schema: byVm }, async ({ caller, params }) =>
      contractView(await ownerOfVm(services, caller, params.vm)),
    );
    app.post(
      '/v1/egress/vm/:vm',
      { ...RUN, schema: { ...byVm, body: EgressPolicyBody } },
      async ({ caller, params, body }) =>
        contractView(await change(await ownerOfVm(services, caller, params.vm), body)),
    );

    const params = z.object({ id: z.string() });
    const got = { summary: 'The egress policy in force', params, response: { 200: SandboxEgressResponse } };
    app.get('/v2/sandboxes/:id/egress', { ...READ, schema: got }, async ({ caller, params }) =>
      ownView(await ownerOf(services, caller, params.id)),
    );
    const put = {
      ...got,
      summary: 'Replace the egress policy: it holds from now on, and connections that it forbids are cut',
      body: SandboxEgressPolicy,
    };
    app.put('/v2/sandboxes/:id/egress', { ...RUN, schema: put }, async ({ caller, params, body }) =>
      ownView(await change(await ownerOf(services, caller, params.id), body)),
    );

    const tested = {
      summary: 'What the egress policy says about a destination, without connecting',
      params,
      body: EgressTestRequest,
      response: { 200: EgressTestResponse },
    };
    app.post('/v2/sandboxes/:id/egress/test', { ...READ, schema: tested }, async ({ caller, params, body }) => {
      const owner = await ownerOf(services, caller, params.id);
      const { addresses, ...verdict } = await services.egress.explain(effective(owner), body.destination);
      return { ...verdict, addresses: [...addresses] };
    });
  };

const policyView = (policy: EgressPolicy) => ({
  allow_http: policy.allowHttp,
  allow_https: policy.allowHttps,
  allow_public_repos: policy.allowPublicRepos,
  allowed_domains: [...policy.allowedDomains],
  allowed_cidrs: [...policy.allowedCidrs],
});

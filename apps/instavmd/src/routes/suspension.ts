/** Suspending, resuming and forking, under a VM (contract §7) and under a sandbox. */
import { ClonedVm, CloneVmRequest, Sandbox, SnapshotSandboxRequest, Vm, WaitQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { ownerOf, ownerOfVm, sandboxView, vmView } from './views.ts';

const VmParams = z.object({ vm: z.string() });
const Params = z.object({ id: z.string() });

export const suspensionRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const vm = { params: VmParams, response: { 200: Vm } };
    app.post('/v1/vms/:vm/suspend', { schema: vm }, async ({ account, params }) => {
      const owner = await ownerOfVm(services, account.id, params.vm);
      await owner.suspend();
      return vmView(owner.record);
    });
    const resumed = { ...vm, querystring: WaitQuery };
    app.post('/v1/vms/:vm/resume', { schema: resumed }, async ({ account, params }) => {
      const owner = await ownerOfVm(services, account.id, params.vm);
      await owner.start();
      return vmView(owner.record);
    });
    const cloned = {
      params: VmParams,
      querystring: WaitQuery,
      body: CloneVmRequest.nullish(),
      response: { 200: ClonedVm },
    };
    app.post('/v1/vms/:vm/clone', { schema: cloned }, async ({ account, params, body }) => {
      const source = await ownerOfVm(services, account.id, params.vm);
      const name = body?.snapshot_name ?? undefined;
      const { owner, snapshot } = await services.sandboxes.fork(source, name);
      return { ...vmView(owner.record), snapshot_id: snapshot.id, snapshot_deleted: name === undefined };
    });

    const one = { params: Params, response: { 200: Sandbox } };
    app.post('/v2/sandboxes/:id/suspend', { schema: one }, async ({ account, params }) => {
      const owner = await ownerOf(services, account.id, params.id);
      await owner.suspend();
      return sandboxView(owner.record);
    });
    app.post('/v2/sandboxes/:id/resume', { schema: one }, async ({ account, params }) => {
      const owner = await ownerOf(services, account.id, params.id);
      await owner.start();
      return sandboxView(owner.record);
    });
    const forked = { params: Params, body: SnapshotSandboxRequest.nullish(), response: { 201: Sandbox } };
    app.post('/v2/sandboxes/:id/fork', { schema: forked }, async ({ account, params, body }, reply) => {
      const source = await ownerOf(services, account.id, params.id);
      const { owner } = await services.sandboxes.fork(source, body?.name);
      return reply.code(201).send(sandboxView(owner.record));
    });
  };

/** VMs of the contract (§7): incarnations, seen from the side. `/v1/vms` and `/v1/vms/` are two routes. */
import { DEFAULT_LIFECYCLE, ENDED_STATES } from '@instavm/core';
import {
  CloneVmRequest,
  CloneVmResponse,
  CreateVmRequest,
  InstaVMError,
  StageEnvRequest,
  StageEnvResponse,
  UpdateVmRequest,
  Vm,
  WaitQuery,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { ownMetadata, READ, RUN } from '../auth.ts';
import { createSandbox, egressWanted, lifecycleChange, snapshotOnExpiry } from './create.ts';
import { envOf } from './stage-env.ts';
import { ownerOf, ownerOfVm, recordsFor, vmView } from './views.ts';

const Params = z.object({ vm: z.string() });
/** A VM is resumed by its name unless it was made with `auto_resume` (contract §5.1). */
const VM_LIFECYCLE = { ...DEFAULT_LIFECYCLE, autoResume: false };
const CHANGEABLE = new Set(['metadata', 'auto_suspend', 'auto_resume', 'snapshot_on_terminate', 'snapshot_name']);

/** Every route answers when it is done, also with `wait=false`: it takes less time than a poll. Snapshots are the exception. */
export const vmRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const created = { body: CreateVmRequest.nullish(), querystring: WaitQuery, response: { 200: Vm } };
    app.post('/v1/vms', { ...RUN, schema: created }, async ({ caller, body }) => {
      const { vm_lifetime_seconds, egress_policy, session_id, image_variant, volumes, vault_ids, ...wanted } =
        body ?? {};
      const unavailable = Object.entries({
        'image variants': Boolean(image_variant),
        volumes: (volumes?.length ?? 0) > 0,
        vaults: (vault_ids?.length ?? 0) > 0,
      }).flatMap(([name, isAsked]) => (isAsked ? [name] : []));
      if (unavailable.length > 0)
        throw new InstaVMError('not_available', `${unavailable.join(' and ')} are not available on this server`);
      if (session_id !== undefined) {
        const owner = await ownerOf(services, caller, session_id);
        // One that has ended is made anew.
        if (ENDED_STATES.includes(owner.record.state)) await services.rateLimits.create(caller.account.id);
        await owner.start();
        return vmView(owner.record);
      }
      const egress = egressWanted(services.egress, egress_policy);
      const all = { ...wanted, ...snapshotOnExpiry(null, wanted), ttlSeconds: vm_lifetime_seconds, ...egress };
      return vmView((await createSandbox(services, caller, all, VM_LIFECYCLE)).record);
    });

    const listed = { response: { 200: z.array(Vm) } };
    app.get('/v1/vms', { ...READ, schema: listed }, async ({ caller }) => {
      const records = await recordsFor(services, caller, { alive: true });
      return records.map(vmView);
    });
    app.get('/v1/vms/', { ...READ, schema: listed }, async ({ caller }) => {
      const records = await recordsFor(services, caller);
      return records.filter(({ incarnationId }) => incarnationId !== null).map(vmView);
    });

    const one = { params: Params, response: { 200: Vm } };
    app.get('/v1/vms/:vm', { ...READ, schema: one }, async ({ caller, params }) =>
      vmView((await ownerOfVm(services, caller, params.vm)).record),
    );
    app.patch(
      '/v1/vms/:vm',
      { ...RUN, schema: { ...one, body: UpdateVmRequest } },
      async ({ caller, params, body }) => {
        const owner = await ownerOfVm(services, caller, params.vm);
        const unknown = Object.keys(body).filter((key) => !CHANGEABLE.has(key));
        if (unknown.length > 0)
          throw new InstaVMError('not_available', `changing ${unknown.join(', ')} is not available on this server`);
        await owner.remember(({ lifecycle }) => ({
          lifecycle: {
            ...lifecycle,
            ...lifecycleChange({ ...body, ...snapshotOnExpiry(lifecycle.snapshotOnExpiry, body) }),
          },
          ...(body.metadata !== undefined && { metadata: ownMetadata(caller, body.metadata) }),
        }));
        return vmView(owner.record);
      },
    );
    app.delete('/v1/vms/:vm', { ...RUN, schema: one }, async ({ caller, params }) => {
      const owner = await ownerOfVm(services, caller, params.vm);
      await owner.end('deleted by request', 'request');
      return vmView(owner.record);
    });

    app.post('/v1/vms/:vm/suspend', { ...RUN, schema: one }, async ({ caller, params }) => {
      const owner = await ownerOfVm(services, caller, params.vm);
      await owner.suspend('suspended by request');
      return vmView(owner.record);
    });
    const resumed = { ...one, querystring: WaitQuery };
    app.post('/v1/vms/:vm/resume', { ...RUN, schema: resumed }, async ({ caller, params }) => {
      const owner = await ownerOfVm(services, caller, params.vm);
      await owner.resume();
      return vmView(owner.record);
    });

    const cloned = {
      params: Params,
      querystring: WaitQuery,
      body: CloneVmRequest.nullish(),
      response: { 200: CloneVmResponse },
    };
    app.post('/v1/vms/:vm/clone', { ...RUN, schema: cloned }, async ({ caller, params, body }) => {
      const owner = await ownerOfVm(services, caller, params.vm);
      const name = body?.snapshot_name ?? null;
      await services.rateLimits.create(caller.account.id);
      const { clones, snapshot } = await services.sandboxes.clone(owner, 1, name, {});
      const [clone = owner] = clones;
      return {
        ...vmView(clone.record),
        snapshot_id: name === null ? null : snapshot.id,
        snapshot_deleted: name === null,
      };
    });

    const staged = { params: Params, body: StageEnvRequest, response: { 200: StageEnvResponse } };
    app.post('/v1/vms/:vm/stage-env', { ...RUN, schema: staged }, async ({ caller, params, body }) => {
      const owner = await ownerOfVm(services, caller, params.vm);
      await owner.remember(({ env }) => ({ env: envOf(env, body.entries) }));
      return { success: true, staged: body.entries.length };
    });
  };

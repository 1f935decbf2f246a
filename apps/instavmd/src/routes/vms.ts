/** VMs of the contract (§7): incarnations, seen from the side. `/v1/vms` and `/v1/vms/` are two routes. */
import { CreateVmRequest, InstaVMError, UpdateVmRequest, Vm, WaitQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { createSandbox, egressFromBody, expirySettings } from './create.ts';
import { ownerOf, ownerOfVm, vmView } from './views.ts';

const Params = z.object({ vm: z.string() });
const LIST_LIMIT = 1000;
const CHANGEABLE: ReadonlySet<string> = new Set(Object.keys(UpdateVmRequest.shape));

export const vmRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const created = { body: CreateVmRequest.nullish(), querystring: WaitQuery, response: { 200: Vm } };
    app.post('/v1/vms', { schema: created }, async ({ account, body }) => {
      const wanted = body ?? {};
      if (wanted.image_variant)
        throw new InstaVMError('not_available', 'image variants are not available on this server');
      if (wanted.session_id !== undefined) {
        const owner = await ownerOf(services, account.id, wanted.session_id);
        await owner.start();
        return vmView(owner.record);
      }
      const lifetime = wanted.vm_lifetime_seconds;
      const egress = wanted.egress_policy === undefined ? null : egressFromBody(wanted.egress_policy);
      return vmView((await createSandbox(services, account.id, wanted, lifetime, egress)).record);
    });

    const listed = { response: { 200: z.array(Vm) } };
    app.get('/v1/vms', { schema: listed }, async ({ account }) => {
      const records = await services.sandboxes.list(account.id, LIST_LIMIT, true);
      return records.map(vmView);
    });
    app.get('/v1/vms/', { schema: listed }, async ({ account }) => {
      const records = await services.sandboxes.list(account.id, LIST_LIMIT);
      return records.filter(({ incarnationId }) => incarnationId !== null).map(vmView);
    });

    const one = { params: Params, response: { 200: Vm } };
    app.get('/v1/vms/:vm', { schema: one }, async ({ account, params }) =>
      vmView((await ownerOfVm(services, account.id, params.vm)).record),
    );
    app.patch('/v1/vms/:vm', { schema: { ...one, body: UpdateVmRequest } }, async ({ account, params, body }) => {
      const owner = await ownerOfVm(services, account.id, params.vm);
      const unknown = Object.keys(body).filter((key) => !CHANGEABLE.has(key));
      if (unknown.length > 0)
        throw new InstaVMError('not_available', `changing ${unknown.join(', ')} is not available on this server`);
      const { metadata } = body;
      await owner.remember({ ...expirySettings(body), ...(metadata === undefined ? {} : { metadata }) });
      return vmView(owner.record);
    });
    app.delete('/v1/vms/:vm', { schema: one }, async ({ account, params }) => {
      const owner = await ownerOfVm(services, account.id, params.vm);
      await owner.end('deleted by request', 'request');
      return vmView(owner.record);
    });
  };

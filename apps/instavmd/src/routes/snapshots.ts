/** Snapshots of the contract (§7, §8). Those of OCI images are not built yet. */
import { InstaVMError, Snapshot, SnapshotsQuery, SnapshotVmRequest, WaitQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { READ, RUN } from '../auth.ts';
import { ownerOfVm, snapshotOf, snapshotsFor, snapshotView } from './views.ts';

export const snapshotRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const taken = {
      summary: 'Save memory, devices and disk of a running or suspended VM',
      params: z.object({ vm: z.string() }),
      querystring: WaitQuery,
      body: SnapshotVmRequest.nullish(),
      response: { 200: Snapshot },
    };
    app.post('/v1/vms/:vm/snapshot', { ...RUN, schema: taken }, async ({ caller, params, query, body }) => {
      const owner = await ownerOfVm(services, caller, params.vm);
      const { record, done } = await services.sandboxes.snapshots.take(owner, { name: body?.name ?? null });
      return snapshotView(query.wait === false ? record : await done);
    });

    const listed = { querystring: SnapshotsQuery, response: { 200: z.array(Snapshot) } };
    app.get('/v1/snapshots', { ...READ, schema: listed }, async ({ caller, query }) => {
      const views = (await snapshotsFor(services, caller)).map(snapshotView);
      return query.type === undefined ? views : views.filter(({ type }) => type === query.type);
    });

    const hide = { hide: true };
    app.post('/v1/snapshots', { ...RUN, schema: hide }, async () => {
      throw new InstaVMError('not_available', 'snapshots are not yet built from OCI images on this server', {
        hint: 'Make a VM, set it up, and take a snapshot of it with POST /v1/vms/{vm}/snapshot.',
      });
    });

    const one = { params: z.object({ id: z.string() }), response: { 200: Snapshot } };
    app.get('/v1/snapshots/:id', { ...READ, schema: one }, async ({ caller, params }) =>
      snapshotView(await snapshotOf(services, caller, params.id)),
    );
    app.delete('/v1/snapshots/:id', { ...RUN, schema: one }, async ({ caller, params }) => {
      const snapshot = await snapshotOf(services, caller, params.id);
      return snapshotView(await services.sandboxes.snapshots.delete(caller.account.id, snapshot.id));
    });
  };

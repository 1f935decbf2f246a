/** Snapshots of the contract (§7, §8). Those of OCI images are not built yet. */
import { InstaVMError, Snapshot, SnapshotsQuery, SnapshotVmRequest, WaitQuery } from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { snapshotIdOf } from './create.ts';
import { ownerOfVm, snapshotView } from './views.ts';

const LIST_LIMIT = 1000;

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
    app.post('/v1/vms/:vm/snapshot', { schema: taken }, async ({ account, params, query, body }) => {
      const owner = await ownerOfVm(services, account.id, params.vm);
      const { record, done } = await services.sandboxes.snapshots.take(owner, { name: body?.name ?? null });
      return snapshotView(query.wait === false ? record : await done);
    });

    const listed = { querystring: SnapshotsQuery, response: { 200: z.array(Snapshot) } };
    app.get('/v1/snapshots', { schema: listed }, async ({ account, query }) => {
      const views = (await services.sandboxes.snapshots.list(account.id, LIST_LIMIT)).map(snapshotView);
      return query.type === undefined ? views : views.filter(({ type }) => type === query.type);
    });

    const hide = { hide: true };
    app.post('/v1/snapshots', { schema: hide }, async () => {
      throw new InstaVMError('not_available', 'snapshots are not yet built from OCI images on this server', {
        hint: 'Make a VM, set it up, and take a snapshot of it with POST /v1/vms/{vm}/snapshot.',
      });
    });

    const one = { params: z.object({ id: z.string() }), response: { 200: Snapshot } };
    app.get('/v1/snapshots/:id', { schema: one }, async ({ account, params }) =>
      snapshotView(await services.sandboxes.snapshots.get(account.id, snapshotIdOf(params.id))),
    );
    app.delete('/v1/snapshots/:id', { schema: one }, async ({ account, params }) =>
      snapshotView(await services.sandboxes.snapshots.delete(account.id, snapshotIdOf(params.id))),
    );
  };

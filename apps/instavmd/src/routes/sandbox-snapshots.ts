/** Suspending, resuming, saving and forking sandboxes under our own words (`/v2`). */
import {
  CreateSnapshotRequest,
  ForkRequest,
  ForkResponse,
  Sandbox,
  Snapshot,
  UpdateSandboxRequest,
} from '@instavm/wire';
import type { FastifyPluginAsyncZod } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Services } from '../app.ts';
import { egressWanted, lifecycleChange, snapshotIdOf, specChange } from './create.ts';
import { ownerOf, sandboxView, snapshotView } from './views.ts';

const Params = z.object({ id: z.string() });
const LIST_LIMIT = 1000;

export const sandboxSnapshotRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const one = { params: Params, response: { 200: Sandbox } };

    const changed = { ...one, summary: 'Change what is left to the server', body: UpdateSandboxRequest };
    app.patch('/v2/sandboxes/:id', { schema: changed }, async ({ account, params, body }) => {
      const owner = await ownerOf(services, account.id, params.id);
      const lifecycle = { ...owner.record.lifecycle, ...lifecycleChange(body) };
      await owner.remember({ lifecycle, ...(body.metadata !== undefined && { metadata: body.metadata }) });
      return sandboxView(owner.record);
    });

    const suspended = { ...one, summary: 'Save its memory and disk, and give the memory back' };
    app.post('/v2/sandboxes/:id/suspend', { schema: suspended }, async ({ account, params }) => {
      const owner = await ownerOf(services, account.id, params.id);
      await owner.suspend('suspended by request');
      return sandboxView(owner.record);
    });

    const resumed = { ...one, summary: 'Go on where it was suspended, in a new incarnation' };
    app.post('/v2/sandboxes/:id/resume', { schema: resumed }, async ({ account, params }) => {
      const owner = await ownerOf(services, account.id, params.id);
      await owner.resume();
      return sandboxView(owner.record);
    });

    const taken = {
      summary: 'Save what it is, running or suspended, to be restored any number of times',
      params: Params,
      body: CreateSnapshotRequest.nullish(),
      response: { 201: Snapshot },
    };
    app.post('/v2/sandboxes/:id/snapshots', { schema: taken }, async ({ account, params, body }, reply) => {
      const owner = await ownerOf(services, account.id, params.id);
      const { record, done } = await services.sandboxes.snapshots.take(owner, { name: body?.name ?? null });
      return reply.code(201).send(snapshotView(body?.wait === false ? record : await done));
    });

    const forked = {
      summary: 'Copies of what it is now, each with an identity of its own',
      params: Params,
      body: ForkRequest.nullish(),
      response: { 201: ForkResponse },
    };
    app.post('/v2/sandboxes/:id/fork', { schema: forked }, async ({ account, params, body }, reply) => {
      const owner = await ownerOf(services, account.id, params.id);
      const { count = 1, name = null, ttl_seconds: ttlSeconds, egress_policy, ...wanted } = body ?? {};
      const change = specChange({ ...wanted, ttlSeconds, ...egressWanted(services.egress, egress_policy) });
      const { clones, snapshot } = await services.sandboxes.clone(owner, count, name, change);
      const sandboxes = clones.map(({ record }) => sandboxView(record));
      return reply.code(201).send({ sandboxes, snapshot_id: name === null ? null : snapshot.id });
    });

    const listed = { response: { 200: z.object({ snapshots: z.array(Snapshot) }) } };
    app.get('/v2/snapshots', { schema: listed }, async ({ account }) => ({
      snapshots: (await services.sandboxes.snapshots.list(account.id, LIST_LIMIT)).map(snapshotView),
    }));
    const snapshot = { params: Params, response: { 200: Snapshot } };
    app.get('/v2/snapshots/:id', { schema: snapshot }, async ({ account, params }) =>
      snapshotView(await services.sandboxes.snapshots.get(account.id, snapshotIdOf(params.id))),
    );
    app.delete('/v2/snapshots/:id', { schema: snapshot }, async ({ account, params }) =>
      snapshotView(await services.sandboxes.snapshots.delete(account.id, snapshotIdOf(params.id))),
    );
  };

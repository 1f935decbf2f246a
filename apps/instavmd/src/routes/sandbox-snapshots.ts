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
import { ownMetadata, READ, RUN } from '../auth.ts';
import { egressWanted, lifecycleChange, specChange } from './create.ts';
import { ownerOf, sandboxView, snapshotOf, snapshotsFor, snapshotView } from './views.ts';

const Params = z.object({ id: z.string() });

export const sandboxSnapshotRoutes =
  (services: Services): FastifyPluginAsyncZod =>
  async (app) => {
    const one = { params: Params, response: { 200: Sandbox } };

    const changed = { ...one, summary: 'Change what is left to the server', body: UpdateSandboxRequest };
    app.patch('/v2/sandboxes/:id', { ...RUN, schema: changed }, async ({ caller, params, body }) => {
      const owner = await ownerOf(services, caller, params.id);
      await owner.remember(({ lifecycle }) => ({
        lifecycle: { ...lifecycle, ...lifecycleChange(body) },
        ...(body.metadata !== undefined && { metadata: ownMetadata(caller, body.metadata) }),
      }));
      return sandboxView(owner.record);
    });

    const suspended = { ...one, summary: 'Save its memory and disk, and give the memory back' };
    app.post('/v2/sandboxes/:id/suspend', { ...RUN, schema: suspended }, async ({ caller, params }) => {
      const owner = await ownerOf(services, caller, params.id);
      await owner.suspend('suspended by request');
      return sandboxView(owner.record);
    });

    const resumed = { ...one, summary: 'Go on where it was suspended, in a new incarnation' };
    app.post('/v2/sandboxes/:id/resume', { ...RUN, schema: resumed }, async ({ caller, params }) => {
      const owner = await ownerOf(services, caller, params.id);
      await owner.resume();
      return sandboxView(owner.record);
    });

    const taken = {
      summary: 'Save what it is, running or suspended, to be restored any number of times',
      params: Params,
      body: CreateSnapshotRequest.nullish(),
      response: { 201: Snapshot },
    };
    app.post('/v2/sandboxes/:id/snapshots', { ...RUN, schema: taken }, async ({ caller, params, body }, reply) => {
      const owner = await ownerOf(services, caller, params.id);
      const { record, done } = await services.sandboxes.snapshots.take(owner, { name: body?.name ?? null });
      return reply.code(201).send(snapshotView(body?.wait === false ? record : await done));
    });

    const forked = {
      summary: 'Copies of what it is now, each with an identity of its own',
      params: Params,
      body: ForkRequest.nullish(),
      response: { 201: ForkResponse },
    };
    app.post('/v2/sandboxes/:id/fork', { ...RUN, schema: forked }, async ({ caller, params, body }, reply) => {
      const owner = await ownerOf(services, caller, params.id);
      const { count = 1, name = null, ttl_seconds: ttlSeconds, egress_policy, ...wanted } = body ?? {};
      const change = specChange(caller, { ...wanted, ttlSeconds, ...egressWanted(services.egress, egress_policy) });
      await services.rateLimits.create(caller.account.id, count);
      const { clones, snapshot } = await services.sandboxes.clone(owner, count, name, change);
      const sandboxes = clones.map(({ record }) => sandboxView(record));
      return reply.code(201).send({ sandboxes, snapshot_id: name === null ? null : snapshot.id });
    });

    const listed = { response: { 200: z.object({ snapshots: z.array(Snapshot) }) } };
    app.get('/v2/snapshots', { ...READ, schema: listed }, async ({ caller }) => ({
      snapshots: (await snapshotsFor(services, caller)).map(snapshotView),
    }));
    const snapshot = { params: Params, response: { 200: Snapshot } };
    app.get('/v2/snapshots/:id', { ...READ, schema: snapshot }, async ({ caller, params }) =>
      snapshotView(await snapshotOf(services, caller, params.id)),
    );
    app.delete('/v2/snapshots/:id', { ...RUN, schema: snapshot }, async ({ caller, params }) => {
      const snapshot = await snapshotOf(services, caller, params.id);
      return snapshotView(await services.sandboxes.snapshots.delete(caller.account.id, snapshot.id));
    });
  };
